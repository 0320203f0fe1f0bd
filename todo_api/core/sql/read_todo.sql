-- One todo as the JSON object that lists show, and where the command is that last changed it; null when there is none.
-- is_applied: the state that this shows includes the commands at the positions (logs, partitions, offsets).
select wanted.is_applied, todo.body, todo.source, todo.source_offset
from (
    select not exists (
        select
        from unnest(%(logs)s::text[], %(partitions)s::int[], %(offsets)s::bigint[]) as named (log, partition, at)
        left join applied using (log, partition)
        where coalesce(next_offset, 0) <= at
    ) as is_applied
) as wanted
left join (
    select
        concat(
            '{"id":"', id,
            '","title":', to_json(title),
            ',"description":', to_json(description),
            ',"completed":', case when completed then 'true' else 'false' end,
            ',"user_id":', to_json(user_id),
            ',"created_at":', rtrim(to_json(created_at at time zone 'UTC')::text, '"'),
            'Z","updated_at":', rtrim(to_json(updated_at at time zone 'UTC')::text, '"'),
            'Z"}'
        ) as body,
        source,
        source_offset
    from todos
    where id = %(todo_id)s
) as todo on true
