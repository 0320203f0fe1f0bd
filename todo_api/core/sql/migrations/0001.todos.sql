-- The todos, how far the log is applied, and what the worker has to remember for a while.

create table epoch (
    only_row boolean primary key default true check (only_row),
    id text not null
);
comment on table epoch is 'Names this history of the database; a restored backup gets a new one (todo migrate --new-epoch).';
insert into epoch (id) values (left(replace(gen_random_uuid()::text, '-', ''), 16));

create table applied (
    id int generated always as identity unique,
    log text not null,
    partition int not null,
    next_offset bigint not null default 0 check (next_offset >= 0),
    dead_in_a_row int not null default 0,
    primary key (log, partition)
);
comment on table applied is 'Offset of the next command to apply, moved on in the transaction that applies. sum(next_offset) is the generation.';

create table todos (
    id uuid primary key,
    user_id text not null,
    title text not null,
    description text not null,
    completed boolean not null default false,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    version bigint not null default 1,
    source int not null,
    source_offset bigint not null
);
comment on column todos.source is 'applied.id of the partition whose command was last applied to this todo, at source_offset.';
create index todos_newest on todos (created_at desc, id desc);

-- Memory that ends by itself: one partition a period, used in turn, emptied when its turn comes round again
-- (todo_worker/rings.py). No row is ever deleted one by one, and no job has to make tomorrow's partition.

create table rings (
    name text not null,
    slot smallint not null,
    period bigint not null,
    primary key (name, slot)
);

-- 5 slots of 5 minutes: command ids applied in the last 20 minutes at least.
create table seen (
    slot smallint not null,
    command_id uuid not null,
    fingerprint bigint not null,
    primary key (command_id, slot)
) partition by list (slot);
create table seen_0 partition of seen for values in (0);
create table seen_1 partition of seen for values in (1);
create table seen_2 partition of seen for values in (2);
create table seen_3 partition of seen for values in (3);
create table seen_4 partition of seen for values in (4);

-- 9 slots of a day: todos deleted in the last 8 days at least, longer than the topic keeps their creates (7).
create table deleted (
    slot smallint not null,
    todo_id uuid not null,
    user_id text not null,
    source int not null,
    source_offset bigint not null,
    primary key (todo_id, slot)
) partition by list (slot);
create table deleted_0 partition of deleted for values in (0);
create table deleted_1 partition of deleted for values in (1);
create table deleted_2 partition of deleted for values in (2);
create table deleted_3 partition of deleted for values in (3);
create table deleted_4 partition of deleted for values in (4);
create table deleted_5 partition of deleted for values in (5);
create table deleted_6 partition of deleted for values in (6);
create table deleted_7 partition of deleted for values in (7);
create table deleted_8 partition of deleted for values in (8);

-- 3 slots of a day: commands that changed nothing by rule, for two days at least.
create table rejected (
    slot smallint not null,
    source int not null,
    source_offset bigint not null,
    command_id uuid not null,
    user_id text not null,
    reason text not null,
    rejected_at timestamptz not null default now(),
    primary key (source, source_offset, slot)
) partition by list (slot);
create table rejected_0 partition of rejected for values in (0);
create table rejected_1 partition of rejected for values in (1);
create table rejected_2 partition of rejected for values in (2);
