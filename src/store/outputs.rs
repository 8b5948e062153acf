//! The outputs of attempts: JSON values inline, files by their key in the object store.

use serde_json::Value;
use sqlx::PgConnection;

use super::{Error, Store, document};
use crate::domain::outcome::{Output, OutputValue, StoredFile};
use crate::ids::{AttemptNo, TaskId};

/// A stored output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRecord {
    pub name: String,
    pub value: OutputValue,
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    task: TaskId,
    attempt_no: i32,
    outputs: &[Output],
) -> Result<(), Error> {
    for output in outputs {
        let (value, file) = match &output.value {
            OutputValue::Json(value) => (Some(document(value)?), None),
            OutputValue::File(file) => (None, Some(file)),
        };
        sqlx::query!(
            "insert into outputs
                 (task_id, attempt_no, name, kind, value, object_key, media_type, size, sha256, path)
             values ($1, $2, $3, $4, $5::text::json, $6, $7, $8, $9, $10)",
            task.uuid(),
            attempt_no,
            output.name,
            if file.is_some() { "file" } else { "json" },
            value,
            file.map(|it| it.object_key.as_str()),
            file.map(|it| it.media_type.as_str()),
            file.map(|it| i64::try_from(it.size).unwrap_or(i64::MAX)),
            file.map(|it| it.sha256.as_str()),
            file.map(|it| it.path.as_str()),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

impl Store {
    pub async fn list_outputs(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
    ) -> Result<Vec<OutputRecord>, Error> {
        let rows = sqlx::query!(
            "select name, value, object_key, media_type, size, sha256, path from outputs
             where task_id = $1 and attempt_no = $2 order by name",
            task.uuid(),
            attempt_no.0
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| OutputRecord {
                name: it.name,
                value: match it.object_key {
                    None => OutputValue::Json(it.value.unwrap_or(Value::Null)),
                    Some(object_key) => OutputValue::File(StoredFile {
                        object_key,
                        media_type: it.media_type.unwrap_or_default(),
                        size: it.size.and_then(|it| u64::try_from(it).ok()).unwrap_or_default(),
                        sha256: it.sha256.unwrap_or_default(),
                        path: it.path.unwrap_or_default(),
                    }),
                },
            })
            .collect())
    }
}
