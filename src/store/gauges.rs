//! How much there is to do, for limits and metrics: of live tasks alone, so that history costs nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::Timestamp;

use super::{Error, Store};
use crate::domain::target::Placement;

/// The live tasks of one target.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueGauge {
    pub target: String,
    /// Tasks that wait for a worker, those that wait before another attempt included.
    pub queued: i64,
    /// Tasks that a worker has.
    pub running: i64,
    /// Since when the oldest of those waits that could start now.
    pub oldest: Option<Timestamp>,
}

/// The connections of this process to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolGauge {
    pub open: u32,
    pub idle: u32,
    pub most: u32,
}

struct Row {
    target: String,
    queued: i64,
    running: i64,
    oldest: Option<jiff_sqlx::Timestamp>,
}

/// Those that wait for labels count as one: labels of metrics are few.
fn together(gauges: impl Iterator<Item = QueueGauge>) -> Vec<QueueGauge> {
    let mut all: BTreeMap<String, QueueGauge> = BTreeMap::new();
    for it in gauges {
        let target = Placement::of_text(&it.target).gauge().to_owned();
        match all.entry(target.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(QueueGauge { target, ..it });
            }
            Entry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                sum.queued += it.queued;
                sum.running += it.running;
                sum.oldest = sum.oldest.into_iter().chain(it.oldest).min();
            }
        }
    }
    all.into_values().collect()
}

impl Store {
    /// How many tasks wait, counted up to `most`.
    pub async fn queue_depth(&self, most: u64) -> Result<u64, Error> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from
             (select 1 as one from live_tasks where state = 'queued' limit $1) q"#,
            most
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(count.unsigned_abs())
    }

    /// The live tasks of each target that has some.
    pub async fn queue_gauges(&self) -> Result<Vec<QueueGauge>, Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"select target, count(*) filter (where state = 'queued') as "queued!",
             count(*) filter (where state <> 'queued') as "running!",
             min(queued_at) filter (where state = 'queued' and (not_before is null or not_before <= now()))
                 as "oldest: jiff_sqlx::Timestamp"
             from live_tasks group by target"#
        )
        .fetch_all(&self.pool)
        .await?;
        let gauge = |it: Row| QueueGauge {
            target: it.target,
            queued: it.queued,
            running: it.running,
            oldest: it.oldest.map(jiff_sqlx::Timestamp::to_jiff),
        };
        Ok(together(rows.into_iter().map(gauge)))
    }

    pub fn pool_gauge(&self) -> PoolGauge {
        PoolGauge {
            open: self.pool.size(),
            idle: u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX),
            most: self.pool.options().get_max_connections(),
        }
    }
}
