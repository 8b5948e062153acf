-- Keys that callers give to their work. Outside the partitions, as those of requests: unique over all time.
-- A restart gives the key to another task.
create table run_keys (
    kind text not null check (kind in ('task')),
    project text not null,
    key text not null,
    task_id uuid not null,
    created_at timestamptz not null default now(),
    primary key (kind, project, key)
);
create index run_keys_created_at_idx on run_keys (created_at);

alter table live_tasks
    add column user_failures integer not null default 0,
    -- Of the attempt, where that was not with the task.
    add column attempt_queued_at timestamptz,
    -- Not to be started while this task is live.
    add column after_task_id uuid,
    -- {"attempt": id, "engine": id}: an earlier attempt whose end nobody could confirm. Its sandbox has to be
    -- gone before another one starts.
    add column unconfirmed json;

alter table task_specs add column run_key text;

alter table attempts
    add column node text,
    add column sandbox text,
    add column unconfirmed boolean not null default false;

-- What earlier attempts of a task ran, where a later one was given another document.
create table superseded_specs (
    task_id uuid not null,
    -- The last attempt that ran it.
    attempt_no integer not null,
    spec json not null,
    spec_hash text not null,
    primary key (task_id, attempt_no)
) partition by range (task_id);

create or replace procedure ensure_partitions(since timestamptz, until timestamptz)
    language plpgsql as $$
declare
    parent text;
    week timestamp;
    part text;
begin
    foreach parent in array array['task_specs', 'superseded_specs', 'ended_tasks', 'attempts', 'outputs',
                                  'task_events', 'log_chunks'] loop
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
