-- One todo as the JSON object that lists show, and its version.
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
    version
from todos
where id = %(todo_id)s
