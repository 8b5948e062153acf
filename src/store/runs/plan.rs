//! One step of the runs that something happened to: what happened is taken, and what comes of it written, in one
//! transaction under the locks of their rows.
//!
//! Of any number of processes that plan at once each gets other runs. The tasks of a run are made as they become
//! ready, so that how far it is can be told from them: whoever has not planned a run before is given all of them.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::Wanted;
use crate::domain::dag::NodeId;
use crate::domain::failure::Failure;
use crate::domain::plan::{RunPlan, TaskEnd};
use crate::domain::spec::{SpecHash, TaskSpec};
use crate::domain::state::TaskState;
use crate::ids::{AttemptId, RunId, TaskId};
use crate::store::submit::queue_deadline;
use crate::store::{Error, Store, document, opt_jiff, opt_sql, parse_document, sql};

/// How a task of a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    pub node: u32,
    /// None: the task as a whole, which could not be made.
    pub item: Option<u32>,
    pub task: TaskId,
    /// None: it lives.
    pub end: Option<TaskState>,
}

/// A run that something happened to.
#[derive(Debug)]
pub struct DueRun {
    pub run: RunId,
    pub wanted: Wanted,
    pub wanted_by: Option<String>,
    /// Its deadline is over.
    pub is_late: bool,
    pub revision: i64,
    pub started_at: Option<Timestamp>,
    /// How many of its tasks wait for a worker.
    pub queued: usize,
    pub news: Vec<Fact>,
    /// Where the caller does not have it as of this revision.
    pub definition: Option<RunDefinition>,
}

/// All that is known of a run.
#[derive(Debug)]
pub struct RunDefinition {
    pub name: String,
    pub document: Value,
    pub params: Map<String, Value>,
    pub decisions: Vec<Decision>,
    pub facts: Vec<Fact>,
}

/// What was found when a task got ready, once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub node: u32,
    /// Whether its condition holds.
    pub holds: Option<bool>,
    /// How many items its list has.
    pub items: Option<u32>,
}

impl Fact {
    /// Tells the plan of its run.
    pub fn tell(&self, plan: &mut RunPlan) {
        let node = NodeId(self.node);
        match (self.item, self.end.map(end_of)) {
            (Some(item), Some(end)) => plan.ended(node, item, end),
            (Some(item), None) => plan.started(node, item),
            // It could not be told whether, or for what, it is to run.
            (None, _) => {
                plan.condition(node, Err(()));
                plan.expanded(node, Err(()));
            }
        }
    }
}

impl RunDefinition {
    /// Tells a new plan of the run how far it is.
    pub fn tell(&self, plan: &mut RunPlan) {
        self.facts.iter().for_each(|it| it.tell(plan));
        for it in &self.decisions {
            if let Some(holds) = it.holds {
                plan.condition(NodeId(it.node), Ok(holds));
            }
            if let Some(items) = it.items {
                plan.expanded(NodeId(it.node), Ok(items));
            }
        }
    }
}

const fn end_of(state: TaskState) -> TaskEnd {
    match state {
        TaskState::Succeeded => TaskEnd::Succeeded,
        TaskState::Skipped => TaskEnd::Skipped,
        TaskState::Cancelled => TaskEnd::Cancelled,
        TaskState::Failed
        | TaskState::Queued
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Finishing => TaskEnd::Failed,
    }
}

/// A task that is ready.
#[derive(Debug)]
pub struct RunTask {
    pub task: TaskId,
    pub attempt: AttemptId,
    pub node: u32,
    pub item: u32,
    pub spec: TaskSpec,
    pub spec_hash: SpecHash,
}

/// A task that could not be made.
#[derive(Debug)]
pub struct BrokenTask {
    pub task: TaskId,
    pub node: u32,
    pub item: Option<u32>,
    pub name: String,
    pub failure: Failure,
}

/// The end of a run.
#[derive(Debug)]
pub struct RunEnding {
    pub state: &'static str,
    pub failure: Option<Failure>,
    pub result: Option<Map<String, Value>>,
}

/// What comes of what happened to a run.
#[derive(Debug)]
pub struct RunChange {
    pub run: RunId,
    /// Of the live ones.
    pub state: &'static str,
    pub counts: BTreeMap<&'static str, u64>,
    pub started_at: Option<Timestamp>,
    pub decisions: Vec<Decision>,
    pub tasks: Vec<RunTask>,
    pub broken: Vec<BrokenTask>,
    /// Those that are live are to stop.
    pub stop: Vec<(u32, u32)>,
    pub end: Option<RunEnding>,
}

impl RunChange {
    /// Nothing changes.
    pub const fn of(run: RunId) -> Self {
        Self {
            run,
            state: "queued",
            counts: BTreeMap::new(),
            started_at: None,
            decisions: Vec::new(),
            tasks: Vec::new(),
            broken: Vec::new(),
            stop: Vec::new(),
            end: None,
        }
    }
}

/// The transaction of one step.
#[derive(Debug)]
pub struct Planning {
    transaction: Transaction<'static, Postgres>,
    pub runs: Vec<DueRun>,
}

/// How the task of an item ended.
#[derive(Debug)]
pub struct ItemEnd {
    pub item: u32,
    pub exit_code: Option<i32>,
    pub failure: Option<Failure>,
}

fn unsigned(it: i32) -> Result<u32, Error> {
    u32::try_from(it).map_err(|_| Error::Corrupt(format!("{it} is no number of a task")))
}

/// For an `integer` column. There are no workflows of so many tasks.
fn number(it: u32) -> i32 {
    i32::try_from(it).unwrap_or(i32::MAX)
}

impl Store {
    /// Takes what happened to at most `limit` runs, and to those in `also`. `known` are the revisions that the caller
    /// has in memory.
    pub async fn begin_planning(
        &self,
        known: &HashMap<RunId, i64>,
        also: &[RunId],
        limit: i64,
    ) -> Result<Planning, Error> {
        let also: Vec<Uuid> = also.iter().map(|it| it.uuid()).collect();
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query!(
            r#"
            with due as (
                select run_id from (
                    select i.run_id, min(i.entry) as entry
                    from run_inbox i join live_runs l on l.run_id = i.run_id
                    group by i.run_id
                ) as told order by entry limit $1
            )
            select l.run_id, l.wanted, l.wanted_by, l.revision, l.started_at,
                   coalesce(l.deadline <= now(), false) as "is_late!",
                   (select count(*) from live_tasks t where t.run_id = l.run_id and t.state = 'queued')
                       as "queued!"
            from live_runs l
            where l.run_id in (select run_id from due) or l.run_id = any($2) or l.deadline <= now()
            for update skip locked
            "#,
            limit,
            &also,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let ids: Vec<Uuid> = rows.iter().map(|it| it.run_id).collect();
        let mut news = take_news(&mut transaction, &ids).await?;
        let unknown = |it: &&Uuid| {
            let revision = rows.iter().find(|row| row.run_id == **it).map(|row| row.revision);
            known.get(&RunId::from_uuid(**it)).copied() != revision
        };
        let unknown: Vec<Uuid> = ids.iter().filter(unknown).copied().collect();
        let mut definitions = define(&mut transaction, &unknown).await?;
        let runs = rows
            .into_iter()
            .map(|it| {
                let wanted = Wanted::parse(&it.wanted)
                    .ok_or_else(|| Error::Corrupt(format!("run wanted {:?}", it.wanted)))?;
                Ok(DueRun {
                    run: RunId::from_uuid(it.run_id),
                    wanted,
                    wanted_by: it.wanted_by,
                    is_late: it.is_late,
                    revision: it.revision,
                    started_at: opt_jiff(it.started_at),
                    queued: usize::try_from(it.queued).unwrap_or_default(),
                    news: news.remove(&it.run_id).unwrap_or_default(),
                    definition: definitions.remove(&it.run_id),
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Planning { transaction, runs })
    }
}

async fn take_news(
    transaction: &mut Transaction<'static, Postgres>,
    runs: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Fact>>, Error> {
    let mut rows = sqlx::query!(
        "delete from run_inbox where run_id = any($1)
         returning entry, run_id, node, item, task_id, state",
        runs
    )
    .fetch_all(&mut **transaction)
    .await?;
    rows.sort_unstable_by_key(|it| it.entry);
    let mut news: HashMap<Uuid, Vec<Fact>> = HashMap::new();
    for it in rows {
        let facts = news.entry(it.run_id).or_default();
        let (Some(node), Some(task)) = (it.node, it.task_id) else { continue };
        facts.push(fact(node, it.item, task, it.state.as_deref())?);
    }
    Ok(news)
}

fn fact(node: i32, item: Option<i32>, task: Uuid, state: Option<&str>) -> Result<Fact, Error> {
    let end = state
        .map(|it| TaskState::parse(it).ok_or_else(|| Error::Corrupt(format!("task state {it:?}"))))
        .transpose()?;
    Ok(Fact {
        node: unsigned(node)?,
        item: item.map(unsigned).transpose()?,
        task: TaskId::from_uuid(task),
        end,
    })
}

pub(super) async fn define(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<HashMap<Uuid, RunDefinition>, Error> {
    if runs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        "select run_id, name, document, params from runs where run_id = any($1)",
        runs
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut definitions = HashMap::with_capacity(rows.len());
    for it in rows {
        let definition = RunDefinition {
            name: it.name,
            document: it.document,
            params: parse_document("params", it.params)?,
            decisions: Vec::new(),
            facts: Vec::new(),
        };
        definitions.insert(it.run_id, definition);
    }
    let rows = sqlx::query!(
        "select run_id, node, holds, items from run_decisions where run_id = any($1)",
        runs
    )
    .fetch_all(&mut *connection)
    .await?;
    for it in rows {
        if let Some(definition) = definitions.get_mut(&it.run_id) {
            definition.decisions.push(Decision {
                node: unsigned(it.node)?,
                holds: it.holds,
                items: it.items.map(unsigned).transpose()?,
            });
        }
    }
    let rows = sqlx::query!(
        r#"
        select s.run_id as "run_id!", s.node as "node!", s.item, s.task_id as "task_id!",
               e.state as "state?"
        from task_specs s left join ended_tasks e on e.task_id = s.task_id
        where s.run_id = any($1) and s.node is not null
        "#,
        runs
    )
    .fetch_all(&mut *connection)
    .await?;
    for it in rows {
        if let Some(definition) = definitions.get_mut(&it.run_id) {
            definition.facts.push(fact(it.node, it.item, it.task_id, it.state.as_deref())?);
        }
    }
    Ok(definitions)
}

impl Planning {
    /// An output of the tasks of a node, by item.
    pub async fn outputs(
        &mut self,
        run: RunId,
        node: u32,
        name: &str,
    ) -> Result<Vec<(u32, Value)>, Error> {
        let rows = sqlx::query!(
            r#"
            select s.item as "item!", o.value, o.media_type, o.size, o.sha256, s.task_id
            from task_specs s
            join ended_tasks e on e.task_id = s.task_id
            join outputs o on o.task_id = s.task_id and o.attempt_no = e.attempt_no
            where s.run_id = $1 and s.node = $2 and s.item is not null and o.name = $3
            "#,
            run.uuid(),
            number(node),
            name,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| {
                // A file is told by what it takes to get it.
                let file = || {
                    serde_json::json!({
                        "task_id": it.task_id, "name": name, "media_type": it.media_type,
                        "size": it.size, "sha256": it.sha256,
                    })
                };
                let value = it.value.unwrap_or_else(file);
                (u32::try_from(it.item).unwrap_or_default(), value)
            })
            .collect())
    }

    /// How the tasks of a node ended.
    pub async fn ends(&mut self, run: RunId, node: u32) -> Result<Vec<ItemEnd>, Error> {
        let rows = sqlx::query!(
            r#"
            select s.item as "item!", e.exit_code, e.failure
            from task_specs s join ended_tasks e on e.task_id = s.task_id
            where s.run_id = $1 and s.node = $2 and s.item is not null
            "#,
            run.uuid(),
            number(node),
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        rows.into_iter()
            .map(|it| {
                Ok(ItemEnd {
                    item: u32::try_from(it.item).unwrap_or_default(),
                    exit_code: it.exit_code,
                    failure: it.failure.map(|it| parse_document("failure", it)).transpose()?,
                })
            })
            .collect()
    }

    /// The task that failed first, by its name, and why.
    pub async fn first_failure(&mut self, run: RunId) -> Result<Option<(String, Failure)>, Error> {
        let row = sqlx::query!(
            r#"
            select s.name, e.failure as "failure!"
            from task_specs s join ended_tasks e on e.task_id = s.task_id
            where s.run_id = $1 and s.node is not null and e.failure is not null
            order by e.state = 'failed' desc, e.finished_at limit 1
            "#,
            run.uuid()
        )
        .fetch_optional(&mut *self.transaction)
        .await?;
        row.map(|it| Ok((it.name, parse_document("failure", it.failure)?))).transpose()
    }

    /// Writes what comes of it. Durable when it returns.
    pub async fn commit(mut self, now: Timestamp, changes: &[RunChange]) -> Result<(), Error> {
        self.insert_decisions(changes).await?;
        self.insert_tasks(now, changes).await?;
        self.insert_broken(now, changes).await?;
        for it in changes {
            if !it.stop.is_empty() {
                self.stop(now, it).await?;
            }
        }
        self.move_on(changes).await?;
        self.end(now, changes).await?;
        self.transaction.commit().await?;
        Ok(())
    }

    async fn insert_decisions(&mut self, changes: &[RunChange]) -> Result<(), Error> {
        let all = || changes.iter().flat_map(|it| it.decisions.iter().map(|made| (it.run, made)));
        if all().next().is_none() {
            return Ok(());
        }
        let runs: Vec<Uuid> = all().map(|(run, _)| run.uuid()).collect();
        let nodes: Vec<i32> = all().map(|(_, it)| number(it.node)).collect();
        let holds: Vec<Option<bool>> = all().map(|(_, it)| it.holds).collect();
        let items: Vec<Option<i32>> = all().map(|(_, it)| it.items.map(number)).collect();
        sqlx::query!(
            "insert into run_decisions (run_id, node, holds, items)
             select run_id, node, bool_or(holds), max(items)
             from unnest($1::uuid[], $2::integer[], $3::boolean[], $4::integer[])
                  as i (run_id, node, holds, items)
             group by run_id, node
             on conflict (run_id, node) do update
             set holds = coalesce(excluded.holds, run_decisions.holds),
                 items = coalesce(excluded.items, run_decisions.items)",
            &runs,
            &nodes,
            &holds as _,
            &items as _,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn insert_tasks(&mut self, now: Timestamp, changes: &[RunChange]) -> Result<(), Error> {
        let mut columns = Columns::default();
        for change in changes {
            for it in &change.tasks {
                columns.push(change.run, it, now)?;
            }
        }
        if columns.task_ids.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            r#"
            with input as (
                select * from unnest(
                    $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::smallint[], $9::text[], $10::text[], $11::timestamptz[], $12::integer[], $13::integer[]
                ) as t (task_id, run_id, attempt_id, name, image, target, labels, priority, spec, spec_hash,
                        queue_deadline, node, item)
            ), specs as (
                insert into task_specs
                    (task_id, run_id, name, image, target, labels, priority, spec, spec_hash, submitted_by,
                     node, item)
                select i.task_id, i.run_id, i.name, i.image, i.target, i.labels::jsonb, i.priority,
                       i.spec::json, i.spec_hash, r.submitted_by, i.node, i.item
                from input i join runs r on r.run_id = i.run_id
            )
            insert into live_tasks
                (task_id, state, priority, target, queued_at, queue_deadline, attempt_id, attempt_no, run_id,
                 node, item)
            select task_id, 'queued', priority, target, $14, queue_deadline, attempt_id, 1, run_id, node, item
            from input
            "#,
            &columns.task_ids,
            &columns.run_ids,
            &columns.attempt_ids,
            &columns.names,
            &columns.images,
            &columns.targets,
            &columns.labels as _,
            &columns.priorities,
            &columns.specs,
            &columns.spec_hashes,
            &columns.queue_deadlines as _,
            &columns.nodes,
            &columns.items,
            sql(now),
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn insert_broken(&mut self, now: Timestamp, changes: &[RunChange]) -> Result<(), Error> {
        for change in changes {
            for it in &change.broken {
                let failure = document(&it.failure)?;
                sqlx::query!(
                    "with ended as (
                         insert into ended_tasks
                             (task_id, state, attempt_no, failure, queued_at, finished_at)
                         values ($1, 'failed', 1, $6::text::json, $7, $7)
                     )
                     insert into task_specs
                         (task_id, run_id, name, image, target, priority, spec_hash, node, item)
                     values ($1, $2, $3, '', '', 0, '', $4, $5)",
                    it.task.uuid(),
                    change.run.uuid(),
                    it.name,
                    number(it.node),
                    it.item.map(number),
                    failure,
                    sql(now),
                )
                .execute(&mut *self.transaction)
                .await?;
            }
        }
        Ok(())
    }

    /// As a cancel of each of them would.
    async fn stop(&mut self, now: Timestamp, change: &RunChange) -> Result<(), Error> {
        let nodes: Vec<i32> = change.stop.iter().map(|it| number(it.0)).collect();
        let items: Vec<i32> = change.stop.iter().map(|it| number(it.1)).collect();
        let queued = sqlx::query_scalar!(
            r#"
            with meant as (
                select l.task_id, l.state from live_tasks l
                join unnest($2::integer[], $3::integer[]) as s (node, item)
                  on l.node = s.node and l.item = s.item
                where l.run_id = $1
                order by l.task_id
                for update of l
            ), asked as (
                update live_tasks l set stop_reason = 'cancel', stop_requested_at = $4
                from meant m
                where l.task_id = m.task_id and m.state <> 'queued' and l.stop_reason is null
            )
            select task_id from meant where state = 'queued'
            "#,
            change.run.uuid(),
            &nodes,
            &items,
            sql(now),
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let queued: Vec<TaskId> = queued.into_iter().map(TaskId::from_uuid).collect();
        let outcome = crate::domain::outcome::Outcome::cancelled("its run was stopped");
        crate::store::queue::end_queued(&mut self.transaction, &queued, &outcome, now).await?;
        Ok(())
    }

    async fn move_on(&mut self, changes: &[RunChange]) -> Result<(), Error> {
        let live = || changes.iter().filter(|it| it.end.is_none());
        let ids: Vec<Uuid> = live().map(|it| it.run.uuid()).collect();
        let states: Vec<String> = live().map(|it| it.state.to_owned()).collect();
        let counts = live().map(|it| document(&it.counts)).collect::<Result<Vec<_>, _>>()?;
        let started: Vec<_> = live().map(|it| opt_sql(it.started_at)).collect();
        sqlx::query!(
            "update live_runs l
             set revision = l.revision + 1, state = i.state, counts = i.counts::json,
                 started_at = coalesce(l.started_at, i.started_at)
             from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
                  as i (run_id, state, counts, started_at)
             where l.run_id = i.run_id",
            &ids,
            &states,
            &counts,
            &started as _,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn end(&mut self, now: Timestamp, changes: &[RunChange]) -> Result<(), Error> {
        for change in changes {
            let Some(end) = &change.end else { continue };
            let failure = end.failure.as_ref().map(document).transpose()?;
            let result = end.result.as_ref().map(document).transpose()?;
            sqlx::query!(
                "with gone as (
                     delete from live_runs where run_id = $1 returning *
                 ), told as (
                     delete from run_inbox where run_id = $1
                 )
                 insert into ended_runs
                     (run_id, state, failure, counts, result, queued_at, started_at, finished_at)
                 select run_id, $2, $3::text::json, $4::text::json, $5::text::json, queued_at,
                        coalesce(started_at, $7), $6
                 from gone",
                change.run.uuid(),
                end.state,
                failure,
                document(&change.counts)?,
                result,
                sql(now),
                opt_sql(change.started_at) as _,
            )
            .execute(&mut *self.transaction)
            .await?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Columns {
    task_ids: Vec<Uuid>,
    run_ids: Vec<Uuid>,
    attempt_ids: Vec<Uuid>,
    names: Vec<String>,
    images: Vec<String>,
    targets: Vec<String>,
    labels: Vec<Option<String>>,
    priorities: Vec<i16>,
    specs: Vec<String>,
    spec_hashes: Vec<String>,
    queue_deadlines: Vec<Option<jiff_sqlx::Timestamp>>,
    nodes: Vec<i32>,
    items: Vec<i32>,
}

impl Columns {
    fn push(&mut self, run: RunId, it: &RunTask, now: Timestamp) -> Result<(), Error> {
        let spec = &it.spec;
        self.task_ids.push(it.task.uuid());
        self.run_ids.push(run.uuid());
        self.attempt_ids.push(it.attempt.uuid());
        self.names.push(spec.name.clone());
        self.images.push(spec.image.clone());
        self.targets.push(spec.target.to_string());
        self.labels.push((!spec.labels.is_empty()).then(|| document(&spec.labels)).transpose()?);
        self.priorities.push(spec.priority);
        self.specs.push(document(spec)?);
        self.spec_hashes.push(it.spec_hash.as_str().to_owned());
        self.queue_deadlines.push(opt_sql(queue_deadline(spec, now)));
        self.nodes.push(number(it.node));
        self.items.push(number(it.item));
        Ok(())
    }
}
