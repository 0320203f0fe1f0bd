"""What a Python user would write first: FastAPI that hands on page bytes from Redis."""

import os

import redis.asyncio as redis
from fastapi import FastAPI, Response

app = FastAPI()
cache = redis.from_url(os.environ["REDIS_URL"])


@app.get("/todos")
async def todos(limit: int = 0) -> Response:
    body = await cache.get(f"todos:limit:{limit}" if limit else "todos:all")
    return Response(body or b"[]", media_type="application/json")
