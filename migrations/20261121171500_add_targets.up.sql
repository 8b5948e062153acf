-- The targets of the deployment: put through the API, or written here at its start by a process that has them in
-- its configuration. The built-in one is in no table.
create sequence target_revisions;
create table targets (
    name text primary key,
    -- It holds credentials.
    document jsonb not null,
    origin text not null check (origin in ('api', 'config')),
    -- Gone from the configuration, and kept because tasks were still on it: nothing new is started there.
    retired boolean not null default false,
    -- Higher with each change of any target.
    revision bigint not null default nextval('target_revisions'),
    updated_at timestamptz not null default now()
);

-- Questions to the workers: whoever reaches the target answers. A row is gone when somebody read the answer, or
-- soon after nobody did.
create table target_checks (
    id uuid primary key,
    target text not null,
    -- Of the document that is to be checked. Null: any.
    revision bigint,
    asked_at timestamptz not null default now(),
    worker text,
    taken_at timestamptz,
    answer jsonb,
    answered_at timestamptz
);
