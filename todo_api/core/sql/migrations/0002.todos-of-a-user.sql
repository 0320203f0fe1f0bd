-- transactional: false
-- Lists of one user's todos (GET /todos?user=me). Reads and the worker go on while it is built.
-- What an earlier attempt left unfinished is in the way, and no index.
drop index concurrently if exists todos_of_user;
create index concurrently todos_of_user on todos (user_id, created_at desc, id desc);
