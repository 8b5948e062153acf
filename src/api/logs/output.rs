//! The body of an answer: reads blocks of frames as the caller takes them, and writes what passes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::Instant;

use super::encode::{self, Format};
use super::select::Select;
use crate::api::state::App;
use crate::domain::log::lines::{Line, Lines};
use crate::domain::log::tail::TailSearch;
use crate::domain::log::{LogBlock, LogFrame, LogPlace};
use crate::ids::{AttemptNo, TaskId};
use crate::store;

/// The container that decides about its task.
pub(in crate::api) const MAIN_CONTAINER: &str = "main";
/// What is sent at a time.
const PIECE: usize = 64 << 10;

pub(in crate::api) type Blocks = BoxStream<'static, Result<LogBlock, store::Error>>;

/// In which form, and which lines of it.
#[derive(Debug, Clone)]
pub(in crate::api) struct Form {
    pub(in crate::api) format: Format,
    pub(in crate::api) timestamps: bool,
    pub(in crate::api) select: Select,
    /// Of several containers: each line says of which.
    pub(in crate::api) several: bool,
}

impl Form {
    /// The bytes as they are: nothing has to know where lines begin.
    pub(in crate::api) fn is_plain(&self) -> bool {
        self.format == Format::Text && !self.timestamps && !self.several && self.select.is_all()
    }
}

#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum Interrupted {
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("the process is stopping")]
    Draining,
}

/// The offset from which as many lines pass as are wanted, or all that there are.
pub(in crate::api) async fn tail(
    app: &App,
    task: TaskId,
    container: &str,
    mut end: LogPlace,
    wanted: usize,
    select: &Select,
) -> Result<u64, store::Error> {
    if wanted == 0 {
        return Ok(end.offset);
    }
    let mut search = TailSearch::new(wanted);
    while let Some(block) = app.logs.block_before(task, container, end).await? {
        end.offset = block.place.offset;
        let is_old = |it: &LogFrame| select.since.is_some_and(|since| it.at < since);
        let all_old = block.frames.iter().all(is_old);
        let (wants, passes) =
            (|it: &LogFrame| select.wants(it.stream), |it: &Line| select.passes(it));
        if let Some(found) = search.take(block, wants, passes) {
            return Ok(found);
        }
        if all_old {
            return Ok(end.offset);
        }
    }
    Ok(0)
}

/// How far the log of one container was read.
struct Log {
    container: Arc<str>,
    /// Behind what was read.
    place: LogPlace,
    lines: Lines,
}

/// Writes a log, or those of several containers, piece by piece.
pub(in crate::api) struct Output {
    app: App,
    task: TaskId,
    form: Form,
    blocks: Blocks,
    /// What is left of the block that is being written.
    frames: std::vec::IntoIter<LogFrame>,
    logs: Vec<Log>,
    /// Whose frames these are.
    current: usize,
    /// Of what is read next, or was read last.
    attempt: AttemptNo,
    piece: Vec<u8>,
    /// Bytes that are still to be sent, where only so many are wanted.
    left: u64,
    /// An event stream that has nothing else to say gives a sign of life as often.
    heartbeat: Duration,
    /// Where it begins.
    from: LogPlace,
    spoke_at: Instant,
    ended: bool,
}

impl Output {
    pub(in crate::api) fn new(
        app: App,
        task: TaskId,
        form: Form,
        from: LogPlace,
        blocks: Blocks,
    ) -> Self {
        Self {
            heartbeat: app.settings.log_heartbeat,
            app,
            task,
            form,
            blocks,
            frames: Vec::new().into_iter(),
            logs: Vec::new(),
            current: 0,
            attempt: from.attempt,
            from,
            piece: Vec::new(),
            left: u64::MAX,
            spoke_at: Instant::now(),
            ended: false,
        }
    }

    /// Only so many bytes.
    pub(in crate::api) const fn limited(mut self, bytes: u64) -> Self {
        self.left = bytes;
        self
    }

    pub(in crate::api) fn stream(self) -> BoxStream<'static, Result<Bytes, Interrupted>> {
        stream::try_unfold(self, |mut it| async move {
            // Without its proper end a client knows that there is more.
            match it.next().await {
                Ok(piece) => Ok(piece.map(|piece| (piece, it))),
                Err(error) => {
                    tracing::warn!(%error, "a log could not be read to its end");
                    Err(error)
                }
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Interrupted> {
        loop {
            while self.piece.len() < PIECE {
                let Some(frame) = self.frames.next() else { break };
                self.write(&frame);
            }
            if self.piece.is_empty() && self.spoke_at.elapsed() >= self.heartbeat {
                self.idle();
            }
            if !self.piece.is_empty() {
                self.spoke_at = Instant::now();
                return Ok(Some(std::mem::take(&mut self.piece).into()));
            }
            if self.ended || self.left == 0 {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// The next block, or what is to be said in place of it.
    async fn read(&mut self) -> Result<(), Interrupted> {
        let draining = self.app.lifecycle.draining().clone();
        let block = tokio::select! {
            // What is there goes first.
            biased;
            block = self.blocks.next() => block.transpose()?,
            () = draining.cancelled() => return Err(Interrupted::Draining),
            () = tokio::time::sleep_until(self.spoke_at + self.heartbeat) => return Ok(()),
        };
        let Some(block) = block else {
            self.flush();
            self.ended = true;
            return self.end().await;
        };
        if block.place.attempt != self.attempt {
            self.flush();
            self.logs.clear();
            self.attempt = block.place.attempt;
        }
        self.enter(&block);
        if self.form.is_plain() {
            self.write_plain(&block);
        } else {
            self.frames = block.frames.into_iter();
        }
        Ok(())
    }

    fn enter(&mut self, block: &LogBlock) {
        let place = block.place;
        let known = self.logs.iter().position(|it| it.container == block.container);
        self.current = known.unwrap_or(self.logs.len());
        if known.is_none() {
            let container = Arc::clone(&block.container);
            self.logs.push(Log { container, place, lines: Lines::default() });
        }
        self.logs[self.current].place = place;
    }

    fn write_plain(&mut self, block: &LogBlock) {
        let bytes: usize = block.frames.iter().map(|it| it.bytes.len()).sum();
        let mut text = BytesMut::with_capacity(bytes);
        for frame in &block.frames {
            let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(frame.bytes.len());
            text.extend_from_slice(&frame.bytes[..wanted]);
            self.left -= wanted as u64;
        }
        self.logs[self.current].place.offset += bytes as u64;
        self.piece = text.into();
    }

    fn write(&mut self, frame: &LogFrame) {
        let Self { logs, form, piece, .. } = self;
        let Log { container, place, lines } = &mut logs[self.current];
        let offset = place.offset;
        place.offset += frame.bytes.len() as u64;
        if !form.select.wants(frame.stream) {
            return;
        }
        lines.push(offset, frame, |line| write_line(piece, form, container, *place, &line));
    }

    /// A line that is open is not held back for longer.
    fn idle(&mut self) {
        self.flush();
        if self.piece.is_empty() && self.form.format == Format::Sse {
            encode::heartbeat(&mut self.piece);
        }
        self.spoke_at = Instant::now();
    }

    fn flush(&mut self) {
        let Self { logs, form, piece, .. } = self;
        for Log { container, place, lines } in logs {
            if let Some(line) = lines.flush() {
                write_line(piece, form, container, *place, &line);
            }
        }
    }

    async fn end(&mut self) -> Result<(), Interrupted> {
        if self.form.format == Format::Sse
            && let Some(record) = self.app.store.find_task(self.task).await?
        {
            let (state, attempt) = (record.state.as_str(), record.attempt_no);
            let place = self.logs.first().map_or(self.from, |it| it.place);
            let place = (!self.form.several).then_some(place);
            encode::end(&mut self.piece, place, self.task, state, attempt);
        }
        Ok(())
    }
}

fn write_line(piece: &mut Vec<u8>, form: &Form, container: &str, place: LogPlace, line: &Line) {
    if !form.select.passes(line) {
        return;
    }
    match form.format {
        Format::Text if form.several => encode::text_of(piece, container, line, form.timestamps),
        Format::Text => encode::text(piece, line, form.timestamps),
        Format::Ndjson => encode::ndjson(piece, container, place.attempt, line),
        Format::Sse => encode::event(piece, container, place.attempt, line, form.several),
    }
}
