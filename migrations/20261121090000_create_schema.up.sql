-- One row for the deployment: its id names every sandbox it makes.
create table installation (
    singleton boolean primary key default true check (singleton),
    id uuid not null,
    created_at timestamptz not null default now()
);

-- A row for each worker process. Its heartbeat is the lease of everything that it holds: one write
-- every few seconds, however many tasks run.
create table workers (
    id uuid primary key,
    epoch bigint not null,
    hostname text not null,
    version text not null,
    -- target name → {"ready": bool, "engine": text, "why": text, "since": timestamp}
    targets jsonb not null default '{}',
    started_at timestamptz not null default now(),
    heartbeat_at timestamptz not null default now()
) with (fillfactor = 50);

create table tokens (
    id uuid primary key,
    name text not null,
    sha256 bytea not null constraint tokens_sha256_key unique check (length(sha256) = 32),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

-- Keys that callers give to requests. Outside the partitions: a key is unique over all time.
create table idempotency_keys (
    kind text not null check (kind in ('task')),
    project text not null,
    key text not null,
    task_id uuid not null,
    fingerprint bytea not null,
    created_at timestamptz not null default now(),
    primary key (kind, project, key)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);

-- The hot table: a narrow row for each task that is not yet terminal, gone when it is. Nothing here is
-- read for a terminal task, and no cost here grows with history.
create table live_tasks (
    task_id uuid primary key,
    state text not null check (state in ('queued', 'starting', 'running', 'finishing')),
    priority smallint not null,
    target text not null,
    queued_at timestamptz not null,
    not_before timestamptz,
    queue_deadline timestamptz,
    attempt_id uuid not null,
    attempt_no integer not null,
    platform_failures integer not null default 0,
    fence bigint not null default 0,
    worker_id uuid,
    -- The engine that the attempt was given to: only its word on the sandbox counts.
    engine_id text,
    claimed_at timestamptz,
    started_at timestamptz,
    handle json,
    image_digest text,
    stop_reason text check (stop_reason in ('cancel', 'run_timeout')),
    stop_requested_at timestamptz,
    check ((state = 'queued') = (worker_id is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
        autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index live_tasks_queue_idx on live_tasks (target, priority desc, task_id) where state = 'queued';
create index live_tasks_deadline_idx on live_tasks (queue_deadline)
    where state = 'queued' and queue_deadline is not null;
create index live_tasks_worker_idx on live_tasks (worker_id) where worker_id is not null;

-- History: written once, never updated, partitioned by the time in the UUIDv7 of the task. Retention
-- drops whole partitions. The functions below make them.
create table task_specs (
    task_id uuid primary key,
    run_id uuid not null,
    name text not null,
    image text not null,
    target text not null,
    labels jsonb,
    priority smallint not null,
    spec json not null,
    spec_hash text not null,
    submitted_by uuid
) partition by range (task_id);
create index task_specs_name_idx on task_specs (name, task_id);
create index task_specs_labels_idx on task_specs using gin (labels jsonb_path_ops) where labels is not null;

create table ended_tasks (
    task_id uuid primary key,
    state text not null check (state in ('succeeded', 'failed', 'skipped', 'cancelled')),
    attempt_no integer not null,
    exit_code integer,
    failure json,
    queued_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz not null
) partition by range (task_id);
create index ended_tasks_unsuccessful_idx on ended_tasks (state, task_id) where state <> 'succeeded';

create table attempts (
    task_id uuid not null,
    attempt_no integer not null,
    attempt_id uuid not null,
    state text not null check (state in ('succeeded', 'failed', 'skipped', 'cancelled')),
    exit_code integer,
    failure json,
    target text not null,
    engine_id text,
    worker_id uuid,
    handle json,
    image_digest text,
    -- What becomes of its sandbox, should one be found later.
    keep_sandbox boolean not null,
    -- container → {"bytes": n, "truncated": bool, "incomplete": bool}
    log json,
    queued_at timestamptz not null,
    claimed_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz not null,
    primary key (task_id, attempt_no)
) partition by range (task_id);

create table outputs (
    task_id uuid not null,
    attempt_no integer not null,
    name text not null,
    kind text not null check (kind in ('json', 'file')),
    value json,
    object_key text,
    media_type text,
    size bigint,
    sha256 text,
    path text,
    primary key (task_id, attempt_no, name),
    check ((kind = 'json') = (value is not null)),
    check ((kind = 'file') = (object_key is not null))
) partition by range (task_id);

-- Only what the columns above do not tell: pulls, adoptions, lost engines, requests to stop.
create table task_events (
    task_id uuid not null,
    event_id uuid not null,
    attempt_no integer not null,
    at timestamptz not null,
    source text not null,
    reason text not null,
    message text not null,
    primary key (task_id, event_id)
) partition by range (task_id);

-- The log of an attempt, append-only, byte-addressed per container.
create table log_chunks (
    task_id uuid not null,
    attempt_no integer not null,
    container text not null,
    seq integer not null,
    -- Of the first byte of this chunk in the whole log.
    byte_offset bigint not null,
    byte_len integer not null,
    -- Nanoseconds since the epoch, as the engine gave them.
    first_at bigint not null,
    last_at bigint not null,
    crc32c bigint not null,
    encoding text not null check (encoding in ('frames', 'frames+zstd')),
    data bytea not null,
    primary key (task_id, attempt_no, container, seq)
) partition by range (task_id);
alter table log_chunks alter column data set storage external;

-- The smallest UUIDv7 of a moment.
create function uuid_at(moment timestamptz) returns uuid
    language sql immutable strict parallel safe
    return (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- Makes the partitions of the weeks from `since` to `until`, and the default ones that catch the ids of
-- a machine whose clock is wrong.
create procedure ensure_partitions(since timestamptz, until timestamptz)
    language plpgsql as $$
declare
    parent text;
    week timestamp;
    part text;
begin
    foreach parent in array array['task_specs', 'ended_tasks', 'attempts', 'outputs', 'task_events', 'log_chunks'] loop
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

call ensure_partitions(now() - interval '1 week', now() + interval '4 weeks');
