//! Takes a body off the wire: bounded in size, and in the time between two pieces.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;

use crate::api::problem::{Problem, ProblemKind};
use crate::api::state::Settings;

/// So much of a body that is too large is read and dropped: most clients only read the answer then.
const DRAINED: usize = 64 << 20;

pub(super) async fn whole(
    headers: &HeaderMap,
    body: Body,
    settings: &Settings,
) -> Result<Vec<u8>, Problem> {
    let (limit, idle) = (settings.body_limit, settings.body_timeout);
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|it| it.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or_default();
    let mut stream = body.into_data_stream();
    if declared > limit {
        // A client that asked first has not sent anything yet.
        if !headers.contains_key(header::EXPECT) {
            drain(&mut stream, idle).await;
        }
        return Err(too_large(declared, limit));
    }
    let mut bytes = Vec::with_capacity(declared);
    while let Some(piece) = next_piece(&mut stream, idle).await? {
        if bytes.len() + piece.len() > limit {
            drain(&mut stream, idle).await;
            return Err(too_large(limit + 1, limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn next_piece(
    stream: &mut BodyDataStream,
    idle: Duration,
) -> Result<Option<bytes::Bytes>, Problem> {
    match tokio::time::timeout(idle, stream.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => {
            Err(Problem::new(ProblemKind::InvalidRequest, format!("the body broke off: {error}")))
        }
        Err(_) => Err(Problem::new(
            ProblemKind::RequestTimeout,
            format!("nothing more of the body came for {} s", idle.as_secs()),
        )),
    }
}

async fn drain(stream: &mut BodyDataStream, idle: Duration) {
    let mut left = DRAINED;
    while let Ok(Some(piece)) = next_piece(stream, idle).await {
        match left.checked_sub(piece.len()) {
            Some(it) => left = it,
            None => return,
        }
    }
}

fn too_large(size: usize, limit: usize) -> Problem {
    let size = if size == limit + 1 { format!("more than {limit}") } else { size.to_string() };
    let detail = format!(
        "the body has {size} bytes, at most {limit} are taken: leave large input to a volume or an object \
         store, or raise the limit in the configuration"
    );
    let members = [("limit_bytes".to_owned(), limit.into())].into_iter().collect();
    Problem::new(ProblemKind::BodyTooLarge, detail).members(members)
}
