-- Idempotency keys: what became of the first command with each, for IDEMPOTENCY_HOURS (docs/adr/0014).

-- What a command that is in the log twice gets the second time: the same answer. Null: it took effect.
alter table seen add column reason text;

-- 4 slots, each in use for a third of IDEMPOTENCY_HOURS. Ids of keys are as random as UUIDs can be, so a look-up touches
-- a page of every slot's index: few slots.
create table idempotency_keys (
    slot smallint not null,
    command_id uuid not null,
    fingerprint bigint not null,
    reason text,
    primary key (command_id, slot)
) partition by list (slot);
create table idempotency_keys_0 partition of idempotency_keys for values in (0);
create table idempotency_keys_1 partition of idempotency_keys for values in (1);
create table idempotency_keys_2 partition of idempotency_keys for values in (2);
create table idempotency_keys_3 partition of idempotency_keys for values in (3);

create table idempotency_slot (
    only_row boolean primary key default true check (only_row),
    slot smallint not null,
    since timestamptz not null
);
comment on table idempotency_slot is 'The slot of idempotency_keys that is written to. Locked by all who write there, so that it is the same for all: then the primary key decides who was first.';
insert into idempotency_slot (slot, since) values (0, now());
