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
        :todo_as_json as body,
        source,
        source_offset
    from todos
    where id = %(todo_id)s
) as todo on true
