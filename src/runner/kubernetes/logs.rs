//! stub
use crate::runner::{LogFrame, RunnerError};
use futures_util::stream::{self, BoxStream, StreamExt as _};
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    From(Option<i64>, bool),
    Last(usize),
}
pub(super) struct Source {
    pub(super) client: kube::Client,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) container: String,
}
pub(super) fn read(_s: Source, _p: Part) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
    stream::empty().boxed()
}
