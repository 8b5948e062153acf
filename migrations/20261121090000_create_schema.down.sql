drop procedure ensure_partitions;
drop table log_chunks, task_events, outputs, attempts, ended_tasks, task_specs;
drop function uuid_at;
drop table live_tasks, idempotency_keys, tokens, workers, installation;
