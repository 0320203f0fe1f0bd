"""What a Python user would write first: FastAPI that answers when aiokafka has the acknowledgement."""

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request
from pydantic import BaseModel

TOPIC = os.environ["KAFKA_TODO_TOPIC"]
SECRET = os.environ["JWT_SECRET"]
log: dict[str, AIOKafkaProducer] = {}


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    log["producer"] = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BROKERS"], acks="all", enable_idempotence=True
    )
    await log["producer"].start()
    yield
    await log["producer"].stop()


app = FastAPI(lifespan=lifespan)


class NewTodo(BaseModel):
    title: str
    description: str = ""


@app.get("/health")
async def health() -> str:
    return "OK"


@app.post("/todos", status_code=202)
async def create(todo: NewTodo, request: Request) -> dict[str, str]:
    user = jwt.decode(request.headers["authorization"][7:], SECRET, algorithms=["HS256"])["sub"]
    todo_id = str(uuid.uuid4())
    value = json.dumps({"id": todo_id, "user_id": user, "title": todo.title, "description": todo.description})
    await log["producer"].send_and_wait(TOPIC, value.encode(), key=todo_id.encode())
    return {"id": todo_id}
