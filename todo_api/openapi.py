"""OpenAPI 3.1 from a description in Python: a few words for operations, and the document that they make.

Pure. What the API has to say is in api_description.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal

Schema = Mapping[str, Any]

_OPENAPI: Final = "3.1.0"
_BEARER: Final = "token"
_PATH_PARAMETER: Final = "path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header of answers."""

    description: str
    schema: Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One status. ``content`` maps media types to schemas; none is an answer without a body.

    It always has ``headers``, and may have those in ``sometimes``.
    """

    description: str
    content: Mapping[str, Schema]
    headers: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    where: Literal["query", "header", "path"]
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. ``auth``: whether it takes a token. ``body`` is the schema of a JSON body."""

    summary: str
    tag: str
    answers: Mapping[int, Answer]
    description: str = ""
    auth: Literal["none", "optional", "required"] = "none"
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None


def document(
    operations: Mapping[tuple[str, str], Operation],
    *,
    title: str,
    description: str,
    tags: Mapping[str, str],
    schemas: Mapping[str, Schema],
    headers: Mapping[str, Header],
    servers: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Return the document. ``operations`` are by method and path; ``schemas`` and ``headers`` by the names used there.

    ``servers`` are pairs of a URL, here a path, and what is there.
    """
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation, headers)
    return {
        "openapi": _OPENAPI,
        "info": {
            "title": title,
            "version": version("todo-api"),
            "description": description,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": url, "description": what} for url, what in servers],
        "tags": [{"name": name, "description": what} for name, what in tags.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {_BEARER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def reference(schema: str) -> Schema:
    """Return a reference to the schema of this name."""
    return {"$ref": f"#/components/schemas/{schema}"}


def _operation(method: str, path: str, operation: Operation, headers: Mapping[str, Header]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(method, path),
        "summary": operation.summary,
        "tags": [operation.tag],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.auth != "none":
        described["security"] = [{_BEARER: []}] + ([{}] if operation.auth == "optional" else [])
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": operation.body}},
        }
    described["responses"] = {
        str(status): _answer(answer, headers) for status, answer in operation.answers.items()
    }
    return described


def _operation_id(method: str, path: str) -> str:
    """Return a name for generated clients: ``get_todos``, ``patch_todos_todo_id``."""
    words = path.replace("{", "").replace("}", "").replace(".", "/").split("/")
    return "_".join([method.lower(), *filter(None, words)]) if path != "/" else f"{method.lower()}_root"


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == _PATH_PARAMETER,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _answer(answer: Answer, headers: Mapping[str, Header]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    names = [*answer.headers, *answer.sometimes]
    if names:
        described["headers"] = {
            name: {
                "description": headers[name].description,
                "required": name in answer.headers,
                "schema": headers[name].schema,
            }
            for name in names
        }
    if answer.content:
        described["content"] = {media: {"schema": schema} for media, schema in answer.content.items()}
    return described
