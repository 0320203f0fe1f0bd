-- One list page and the state it shows, in one statement and therefore one snapshot.
-- Parameters: rows (limit), after_at and after_id (the last row of the page before; null for the first page), user_id and
-- completed (filters; null for none), examined.
-- The JSON is built here: about a tenth of the client's CPU that rows and a Python serializer cost.
with newest as materialized (
    select id, title, description, completed, user_id, created_at, updated_at
    from (
        -- No index knows what is completed: it would make each tick of a todo cost several times as much. So a filtered
        -- page looks at no more than "examined" todos. The limit in here also keeps the planner from reading and sorting the whole table when it believes that hardly any todo will match.
        select *
        from todos
        where (%(after_at)s::timestamptz is null or (created_at, id) < (%(after_at)s::timestamptz, %(after_id)s::uuid))
            and (%(user_id)s::text is null or user_id = %(user_id)s::text)
        order by created_at desc, id desc
        limit %(examined)s
    ) as examined
    where %(completed)s::boolean is null or completed = %(completed)s::boolean
    order by created_at desc, id desc
    limit %(rows)s + 1
), shown as materialized (
    select * from newest limit %(rows)s
), last_row as (
    -- Where the next page begins: below the last row of a full page, else below the last one examined.
    (select created_at, id from shown where (select count(*) from newest) > %(rows)s order by created_at, id limit 1)
    union all
    (
        select created_at, id
        from todos
        where (select count(*) from newest) <= %(rows)s
            and %(completed)s::boolean is not null
            and (%(after_at)s::timestamptz is null or (created_at, id) < (%(after_at)s::timestamptz, %(after_id)s::uuid))
            and (%(user_id)s::text is null or user_id = %(user_id)s::text)
        order by created_at desc, id desc
        offset %(examined)s - 1
        limit 1
    )
)
select
    (select id from epoch) as epoch,
    (select coalesce(sum(next_offset), 0)::bigint from applied) as generation,
    (
        select '[' || coalesce(string_agg(:todo_as_json, ','), '') || ']'
        from shown
    ) as body,
    last_row.created_at as last_at,
    last_row.id as last_id
from (values (true)) as always
left join last_row on true
