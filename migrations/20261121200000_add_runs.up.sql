-- Runs of workflows. What a run is to do is history from its submit on, partitioned by the time in its id.
create table runs (
    run_id uuid primary key,
    name text not null,
    labels jsonb,
    -- As it was submitted: what it means is read from it again by whoever drives the run.
    document json not null,
    -- With the defaults of those that were left out.
    params json not null,
    run_key text,
    submitted_by uuid,
    queued_at timestamptz not null
) partition by range (run_id);
create index runs_name_idx on runs (name, run_id);
create index runs_labels_idx on runs using gin (labels jsonb_path_ops) where labels is not null;

create table ended_runs (
    run_id uuid primary key,
    state text not null check (state in ('succeeded', 'failed', 'cancelled')),
    failure json,
    -- State of its tasks → how many.
    counts json not null,
    -- The outputs that it declares.
    result json,
    queued_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz not null
) partition by range (run_id);
create index ended_runs_unsuccessful_idx on ended_runs (state, run_id) where state <> 'succeeded';

-- The hot table: a row for each run that has not ended. Who plans a run holds the lock of its row.
create table live_runs (
    run_id uuid primary key,
    state text not null check (state in ('queued', 'running', 'paused')),
    wanted text not null default 'run' check (wanted in ('run', 'pause', 'cancel')),
    -- Who asked for the pause or the cancel.
    wanted_by text,
    -- Each plan adds one: whoever has the run in memory as of this revision has seen everything before.
    revision bigint not null default 0,
    counts json not null default '{}',
    queued_at timestamptz not null,
    started_at timestamptz,
    deadline timestamptz
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
create index live_runs_deadline_idx on live_runs (deadline) where deadline is not null;

-- What happened to a run and is not planned yet. Only inserts and deletes: tasks that end at once do not wait for
-- each other, and ten thousand of them are one step of their run.
create table run_inbox (
    entry bigint generated always as identity primary key,
    run_id uuid not null,
    -- Null: the run itself is to be looked at.
    node integer,
    item integer,
    task_id uuid,
    -- Of the task, where it has ended. Null: it lives again.
    state text
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
create index run_inbox_run_idx on run_inbox (run_id, entry);

-- What was found when a task of a workflow got ready: whether its condition holds, and how many items its list has.
create table run_decisions (
    run_id uuid not null,
    node integer not null,
    holds boolean,
    items integer,
    primary key (run_id, node)
) partition by range (run_id);

-- Which task of its run's workflow this is, and which item of that. Null: a task by itself.
alter table task_specs
    add column node integer,
    add column item integer,
    -- One that could not be made has none.
    alter column spec drop not null;
create index task_specs_run_idx on task_specs (run_id, node, item) where node is not null;
alter table live_tasks
    add column run_id uuid,
    add column node integer,
    add column item integer;
create index live_tasks_run_idx on live_tasks (run_id) where run_id is not null;

alter table idempotency_keys
    drop constraint idempotency_keys_kind_check,
    add constraint idempotency_keys_kind_check check (kind in ('task', 'run'));
alter table run_keys
    drop constraint run_keys_kind_check,
    add constraint run_keys_kind_check check (kind in ('task', 'run'));

create or replace procedure ensure_partitions(since timestamptz, until timestamptz)
    language plpgsql as $$
declare
    parent text;
    week timestamp;
    part text;
begin
    foreach parent in array array['task_specs', 'superseded_specs', 'ended_tasks', 'attempts', 'outputs',
                                  'task_events', 'log_chunks', 'runs', 'ended_runs', 'run_decisions'] loop
        part := parent || '_default';
        if to_regclass(part) is null then
            execute format('create table %I partition of %I default', part, parent);
        end if;
        week := date_trunc('week', since at time zone 'UTC');
        while week <= until at time zone 'UTC' loop
            part := parent || to_char(week, '"_y"IYYY"w"IW');
            if to_regclass(part) is null then
                begin
                    execute format('create table %I partition of %I for values from (%L) to (%L)', part, parent,
                        uuid_at(week at time zone 'UTC'),
                        uuid_at((week + interval '1 week') at time zone 'UTC'));
                exception when check_violation then
                    -- A clock that ran ahead has left rows of this week in the default partition: the others
                    -- of the week join them there.
                    raise warning 'the rows of % stay in the default partition', part;
                end;
            end if;
            week := week + interval '1 week';
        end loop;
    end loop;
end
$$;

-- From the oldest week that the other tables have.
do $$
declare
    oldest timestamptz := (
        select min(to_timestamp(substring(relname from '_y(.*)$'), 'IYYY"w"IW'))
        from pg_class where relname like 'task\_specs\_y%');
begin
    call ensure_partitions(coalesce(oldest, now() - interval '1 week'), now() + interval '4 weeks');
end
$$;
