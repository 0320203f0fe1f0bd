-- These todos, by version (see read_versions.sql, which must have run in the same snapshot).
select uuid_send(id) || xidsend(xmin), convert_to(:todo_as_json, 'UTF8') from todos where id = any(%(ids)b::uuid[])
