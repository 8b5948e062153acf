//! What tests share.

pub mod api;
pub mod database;
pub mod worker;
