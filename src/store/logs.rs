//! The chunks of logs.

use sqlx::PgConnection;

use super::{Error, Store};
use crate::failpoints::{self, Point};
use crate::ids::{AttemptNo, Fence, TaskId};

/// A chunk to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChunk {
    pub container: String,
    pub seq: i32,
    pub byte_offset: i64,
    pub byte_len: i32,
    pub first_at: i64,
    pub last_at: i64,
    pub crc32c: u32,
    pub encoding: &'static str,
    pub data: Vec<u8>,
}

/// A chunk as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChunk {
    pub seq: i32,
    pub byte_offset: i64,
    pub byte_len: i32,
    pub last_at: i64,
    pub crc32c: u32,
    pub encoding: String,
    pub data: Vec<u8>,
}

/// Where the stored log of an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPosition {
    pub next_seq: i32,
    pub bytes: i64,
    /// The latest time of any frame, in nanoseconds since the epoch.
    pub last_at: Option<i64>,
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    task: TaskId,
    attempt_no: i32,
    chunks: &[NewChunk],
) -> Result<(), Error> {
    for it in chunks {
        sqlx::query!(
            "insert into log_chunks
                 (task_id, attempt_no, container, seq, byte_offset, byte_len, first_at, last_at, crc32c,
                  encoding, data)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            task.uuid(),
            attempt_no,
            it.container,
            it.seq,
            it.byte_offset,
            it.byte_len,
            it.first_at,
            it.last_at,
            i64::from(it.crc32c),
            it.encoding,
            it.data,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

impl Store {
    /// Appends a chunk for the holder of the attempt. `Conflict`: another holder has written this part; read
    /// the position again.
    pub async fn append_chunk(
        &self,
        task: TaskId,
        fence: Fence,
        attempt_no: AttemptNo,
        chunk: &NewChunk,
    ) -> Result<(), Error> {
        let fence = self.fence(task, fence).await?;
        failpoints::at(Point::ChunkBegun);
        let inserted = sqlx::query!(
            "insert into log_chunks
                 (task_id, attempt_no, container, seq, byte_offset, byte_len, first_at, last_at, crc32c,
                  encoding, data)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
             from live_tasks where task_id = $1 and fence = $12",
            task.uuid(),
            attempt_no.0,
            chunk.container,
            chunk.seq,
            chunk.byte_offset,
            chunk.byte_len,
            chunk.first_at,
            chunk.last_at,
            i64::from(chunk.crc32c),
            chunk.encoding,
            chunk.data,
            fence.0,
        )
        .execute(&self.pool)
        .await?;
        failpoints::at(Point::ChunkStored);
        if inserted.rows_affected() == 0 { Err(Error::Fenced) } else { Ok(()) }
    }

    pub async fn log_position(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
    ) -> Result<LogPosition, Error> {
        let row = sqlx::query!(
            r#"select coalesce(max(seq) + 1, 0) as "next_seq!",
                      coalesce(max(byte_offset + byte_len), 0) as "bytes!", max(last_at) as last_at
               from log_chunks where task_id = $1 and attempt_no = $2 and container = $3"#,
            task.uuid(),
            attempt_no.0,
            container,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(LogPosition { next_seq: row.next_seq, bytes: row.bytes, last_at: row.last_at })
    }

    /// The containers of an attempt whose logs are stored, or known to be empty.
    pub async fn log_containers(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
    ) -> Result<Vec<String>, Error> {
        // From one container to the next over the index: there may be many chunks.
        Ok(sqlx::query_scalar!(
            r#"with recursive stored as (
                 (select container from log_chunks where task_id = $1 and attempt_no = $2
                  order by container limit 1)
                 union all
                 select (select c.container from log_chunks c
                         where c.task_id = $1 and c.attempt_no = $2 and c.container > s.container
                         order by c.container limit 1)
                 from stored s where s.container is not null
               )
               select container as "container!" from stored where container is not null
               union
               select json_object_keys(log) from attempts
               where task_id = $1 and attempt_no = $2 and log is not null
               order by 1"#,
            task.uuid(),
            attempt_no.0,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The chunks from number `seq` on that hold bytes from `from` on, in order, at most `limit` of them.
    pub async fn chunks_from(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        seq: i32,
        from: i64,
        limit: i64,
    ) -> Result<Vec<StoredChunk>, Error> {
        let rows = sqlx::query!(
            "select seq, byte_offset, byte_len, last_at, crc32c, encoding, data from log_chunks
             where task_id = $1 and attempt_no = $2 and container = $3 and seq >= $4
               and byte_offset + byte_len > $5
             order by seq limit $6",
            task.uuid(),
            attempt_no.0,
            container,
            seq,
            from,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| StoredChunk {
                seq: it.seq,
                byte_offset: it.byte_offset,
                byte_len: it.byte_len,
                last_at: it.last_at,
                crc32c: u32::try_from(it.crc32c).unwrap_or_default(),
                encoding: it.encoding,
                data: it.data,
            })
            .collect())
    }

    /// The last chunk that has a byte before `before`.
    pub async fn chunk_before(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        before: i64,
    ) -> Result<Option<StoredChunk>, Error> {
        let row = sqlx::query!(
            "select seq, byte_offset, byte_len, last_at, crc32c, encoding, data from log_chunks
             where task_id = $1 and attempt_no = $2 and container = $3 and byte_offset < $4
             order by seq desc limit 1",
            task.uuid(),
            attempt_no.0,
            container,
            before,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|it| StoredChunk {
            seq: it.seq,
            byte_offset: it.byte_offset,
            byte_len: it.byte_len,
            last_at: it.last_at,
            crc32c: u32::try_from(it.crc32c).unwrap_or_default(),
            encoding: it.encoding,
            data: it.data,
        }))
    }

    /// How many bytes are stored.
    pub async fn log_length(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
    ) -> Result<i64, Error> {
        let length = sqlx::query_scalar!(
            r#"select byte_offset + byte_len as "length!" from log_chunks
               where task_id = $1 and attempt_no = $2 and container = $3
               order by seq desc limit 1"#,
            task.uuid(),
            attempt_no.0,
            container,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(length.unwrap_or_default())
    }

    /// Where the first chunk begins that has a frame of this time (nanoseconds since the epoch) or later.
    pub async fn log_offset_since(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        since: i64,
    ) -> Result<Option<i64>, Error> {
        Ok(sqlx::query_scalar!(
            "select byte_offset from log_chunks
             where task_id = $1 and attempt_no = $2 and container = $3 and last_at >= $4
             order by seq limit 1",
            task.uuid(),
            attempt_no.0,
            container,
            since,
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// The last chunks, newest first, before chunk `before`.
    pub async fn chunks_backwards(
        &self,
        task: TaskId,
        attempt_no: AttemptNo,
        container: &str,
        before: i32,
        limit: i64,
    ) -> Result<Vec<StoredChunk>, Error> {
        let rows = sqlx::query!(
            "select seq, byte_offset, byte_len, last_at, crc32c, encoding, data from log_chunks
             where task_id = $1 and attempt_no = $2 and container = $3 and seq < $4
             order by seq desc limit $5",
            task.uuid(),
            attempt_no.0,
            container,
            before,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| StoredChunk {
                seq: it.seq,
                byte_offset: it.byte_offset,
                byte_len: it.byte_len,
                last_at: it.last_at,
                crc32c: u32::try_from(it.crc32c).unwrap_or_default(),
                encoding: it.encoding,
                data: it.data,
            })
            .collect())
    }
}
