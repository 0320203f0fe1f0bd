"""Dead letters for people: read, put back, thrown away. Written by the worker (``todo_worker.dead_letters``)."""
