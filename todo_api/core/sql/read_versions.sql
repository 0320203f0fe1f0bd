-- Which version of which todo is on the first page, as 20 bytes each: the id, and the transaction that wrote the row.
-- Parameters: rows (limit). A tenth of what read_page.sql costs.
with newest as materialized (
    select id, xmin as version, created_at from todos order by created_at desc, id desc limit %(rows)s + 1
)
select
    (select id from epoch) as epoch,
    (select coalesce(sum(next_offset), 0)::bigint from applied) as generation,
    (
        select coalesce(string_agg(uuid_send(id) || xidsend(version), ''), '')
        from (select * from newest limit %(rows)s) as shown
    ) as versions,
    last_row.created_at as last_at,
    last_row.id as last_id
from (values (true)) as always
left join (
    select created_at, id from newest where (select count(*) from newest) > %(rows)s offset %(rows)s - 1 limit 1
) as last_row on true
