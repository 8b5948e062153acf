//! What has to be done from time to time.

pub mod orphan_sweeper;
pub mod queue_gauges;
pub mod retention;
