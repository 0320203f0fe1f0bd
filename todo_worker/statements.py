"""The worker's SQL. Arrays are sent in binary (``%b``): a quarter of the client CPU that text costs at 1,000 rows."""

from typing import Final

# Rows for partitions that nobody applied before. The anti-join keeps the identity from being used up by every call.
CLAIM: Final = """
insert into applied (log, partition)
select %(log)s, wanted.partition from unnest(%(partitions)s::int[]) as wanted (partition)
where not exists (select from applied a where a.log = %(log)s and a.partition = wanted.partition)
on conflict do nothing
"""

PROGRESS: Final = """
select partition, next_offset, dead_in_a_row from applied
where log = %(log)s and partition = any(%(partitions)s::int[])
"""

STATE: Final = "select (select id from epoch), (select coalesce(sum(next_offset), 0)::bigint from applied)"

# The fence, and the database's clock in seconds.
LOCK: Final = """
select partition, id, next_offset, extract(epoch from now())::bigint from applied
where log = %(log)s and partition = any(%(partitions)s::int[])
order by partition
for update
"""

TODOS: Final = "select id, user_id, source, source_offset from todos where id = any(%(ids)b::uuid[])"

# A todo that was deleted again after the log was rewound may be here twice: the later delete counts.
DELETED: Final = """
select distinct on (todo_id) todo_id, user_id, source, source_offset from deleted
where todo_id = any(%(ids)b::uuid[])
order by todo_id, source_offset desc
"""

SEEN: Final = "select command_id, fingerprint, reason from seen where command_id = any(%(ids)b::uuid[])"

INSERT: Final = """
insert into todos
    (id, user_id, title, description, completed, created_at, updated_at, version, source, source_offset)
select * from unnest(
    %(ids)b::uuid[], %(user_ids)b::text[], %(titles)b::text[], %(descriptions)b::text[], %(completed)b::bool[],
    %(created_at)b::timestamptz[], %(updated_at)b::timestamptz[], %(changes)b::bigint[], %(sources)b::int[],
    %(offsets)b::bigint[]
)
"""

UPDATE: Final = """
update todos set
    title = coalesce(change.title, todos.title),
    description = coalesce(change.description, todos.description),
    completed = coalesce(change.completed, todos.completed),
    updated_at = greatest(change.updated_at, todos.updated_at),
    version = todos.version + change.changes,
    source = change.source,
    source_offset = change.source_offset
from unnest(
    %(ids)b::uuid[], %(titles)b::text[], %(descriptions)b::text[], %(completed)b::bool[],
    %(updated_at)b::timestamptz[], %(changes)b::bigint[], %(sources)b::int[], %(offsets)b::bigint[]
) as change (id, title, description, completed, updated_at, changes, source, source_offset)
where todos.id = change.id
"""

DELETE: Final = "delete from todos where id = any(%(ids)b::uuid[])"

REMEMBER_DELETED: Final = """
insert into deleted (slot, todo_id, user_id, source, source_offset)
select %(slot)s, * from unnest(%(ids)b::uuid[], %(user_ids)b::text[], %(sources)b::int[], %(offsets)b::bigint[])
on conflict (todo_id, slot) do update set source = excluded.source, source_offset = excluded.source_offset
"""

REMEMBER_REJECTED: Final = """
insert into rejected (slot, source, source_offset, command_id, user_id, reason)
select %(slot)s, * from unnest(
    %(sources)b::int[], %(offsets)b::bigint[], %(command_ids)b::uuid[], %(user_ids)b::text[], %(reasons)b::text[]
)
on conflict do nothing
"""

REMEMBER_SEEN: Final = """
insert into seen (slot, command_id, fingerprint, reason)
select %(slot)s, * from unnest(%(ids)b::uuid[], %(fingerprints)b::bigint[], %(reasons)b::text[])
on conflict do nothing
"""

ADVANCE: Final = """
update applied set next_offset = move.next_offset, dead_in_a_row = move.dead_in_a_row
from unnest(%(partitions)s::int[], %(expected)s::bigint[], %(next)s::bigint[], %(dead)s::int[])
    as move (partition, expected, next_offset, dead_in_a_row)
where applied.log = %(log)s and applied.partition = move.partition and applied.next_offset = move.expected
returning applied.partition
"""
