concat(
    '{"id":"', id,
    '","title":', to_json(title),
    ',"description":', to_json(description),
    ',"completed":', case when completed then 'true' else 'false' end,
    ',"user_id":', to_json(user_id),
    -- to_json prints ISO 8601 faster than to_char; the Z is ours, because the time was turned into UTC.
    ',"created_at":', rtrim(to_json(created_at at time zone 'UTC')::text, '"'),
    'Z","updated_at":', rtrim(to_json(updated_at at time zone 'UTC')::text, '"'),
    'Z"}'
)
