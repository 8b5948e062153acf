delete from idempotency_keys where kind = 'run';
delete from run_keys where kind = 'run';
alter table idempotency_keys
    drop constraint idempotency_keys_kind_check,
    add constraint idempotency_keys_kind_check check (kind in ('task'));
alter table run_keys
    drop constraint run_keys_kind_check,
    add constraint run_keys_kind_check check (kind in ('task'));
delete from task_specs where spec is null;
alter table task_specs drop column node, drop column item, alter column spec set not null;
alter table live_tasks drop column run_id, drop column node, drop column item;
drop table run_decisions;
drop table run_inbox;
drop table live_runs;
drop table ended_runs;
drop table runs;

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
