//! Kubernetes.

mod collector;
mod convert;
mod files;
mod merge;
mod render;

pub use render::render;
