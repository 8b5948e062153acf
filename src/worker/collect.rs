//! After the exit: the log to its end and the outputs, into our stores.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::domain::failure::{Failure, Reason};
use crate::domain::outcome::Output;
use crate::domain::spec::{OutputSource, TaskSpec};
use crate::logs::pump::LogEnd;
use crate::outputs::gather;
use crate::runner::{
    CollectRequest, Collected, EngineId, Handle, JsonFile, Observation, Runner, SandboxKey,
};
use crate::store::ClaimedTask;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// What an attempt leaves behind.
#[derive(Debug, Default)]
pub(super) struct Remains {
    pub(super) outputs: Vec<Output>,
    pub(super) fault: Option<Failure>,
}

/// Reads the files of the sandbox until it works, the sandbox is gone, or `deadline`.
pub(super) async fn files(
    shared: &Shared,
    runner: &dyn Runner,
    claimed: &ClaimedTask,
    spec: &TaskSpec,
    handle: &Handle,
    deadline: Instant,
) -> Result<Collected, Failure> {
    let settings = &shared.parts.settings;
    let request = CollectRequest {
        json_limit: settings.output_json_bytes,
        files: spec
            .outputs
            .iter()
            .filter_map(|(name, decl)| match &decl.source {
                OutputSource::Path(path) => Some((name.clone(), path.clone())),
                OutputSource::Json | OutputSource::LastLine | OutputSource::AllLines => None,
            })
            .collect(),
        file_limit: settings.output_file_bytes,
    };
    let sink = shared.parts.objects.sink(claimed.task, claimed.attempt_no);
    let key = SandboxKey { installation: shared.parts.installation, attempt: claimed.attempt };
    let engine = EngineId(claimed.engine.clone());
    let mut backoff = FIRST_BACKOFF;
    loop {
        let error = match tokio::time::timeout_at(deadline, runner.collect(handle, &request, &sink))
            .await
        {
            Ok(Ok(collected)) => return Ok(collected),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        tracing::warn!(task.id = %claimed.task, %error, "the outputs can't be stored yet");
        if let Ok(Observation::Absent) = runner.inspect(&key, &engine).await {
            return Ok(Collected { json: JsonFile::Absent, files: BTreeMap::new() });
        }
        if Instant::now() + backoff >= deadline {
            return Err(Failure::new(
                Reason::OutputStoreUnavailable,
                format!("the outputs could not be stored within timeouts.finish: {error}"),
            ));
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

/// Puts the outputs together. The log is stored but for its last chunk, which `log` has.
pub(super) async fn outputs(
    shared: &Shared,
    claimed: &ClaimedTask,
    spec: &TaskSpec,
    collected: &Collected,
    log: &LogEnd,
) -> Remains {
    let limit = shared.parts.settings.output_json_bytes;
    let wants_all = spec.outputs.values().any(|it| it.source == OutputSource::AllLines);
    let all_lines = if wants_all { all_lines(shared, claimed, log, limit).await } else { None };
    let last_line = log.last_stdout_line.as_deref();
    let gathered = gather(&spec.outputs, collected, last_line, all_lines.as_deref(), limit);
    Remains { outputs: gathered.outputs, fault: gathered.fault }
}

async fn all_lines(
    shared: &Shared,
    claimed: &ClaimedTask,
    log: &LogEnd,
    limit: u64,
) -> Option<Vec<String>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let stored = loop {
        match shared.reader.whole_stdout(claimed.task, claimed.attempt_no, limit).await {
            Ok(stored) => break stored?,
            Err(error) if error.is_transient() => {
                tracing::warn!(task.id = %claimed.task, %error, "stdout can't be read yet");
                tokio::time::sleep(FIRST_BACKOFF).await;
            }
            Err(error) => {
                tracing::error!(task.id = %claimed.task, %error, "stdout can't be read");
                return None;
            }
        }
    };
    let mut bytes = stored;
    if let Some(chunk) = &log.chunk {
        bytes.extend(crate::logs::chunk::stdout_of(chunk).unwrap_or_default());
    }
    if bytes.len() > limit {
        return None;
    }
    let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
    Some(text.lines().map(str::to_owned).collect())
}
