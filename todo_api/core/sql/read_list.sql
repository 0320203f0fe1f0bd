-- The first page, todo by todo, each with its version as read_versions.sql has it. No JSON holds a line feed: it parts them.
-- Parameters: rows (limit).
with newest as materialized (
    select id, xmin as version, title, description, completed, user_id, created_at, updated_at
    from todos
    order by created_at desc, id desc
    limit %(rows)s + 1
), shown as materialized (
    select * from newest limit %(rows)s
)
select
    (select id from epoch) as epoch,
    (select coalesce(sum(next_offset), 0)::bigint from applied) as generation,
    (select coalesce(string_agg(uuid_send(id) || xidsend(version), ''), '') from shown) as versions,
    last_row.created_at as last_at,
    last_row.id as last_id,
    (select coalesce(string_agg(:todo_as_json, e'\n'), '') from shown) as bodies
from (values (true)) as always
left join (
    select created_at, id from newest where (select count(*) from newest) > %(rows)s offset %(rows)s - 1 limit 1
) as last_row on true
