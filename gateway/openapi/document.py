"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1.html), made from `operations` and its types."""

from functools import cache
from typing import Any

import msgspec

import gateway
from gateway.openapi.answers import Error
from gateway.openapi.examples import ANSWERED, asked
from gateway.openapi.operation import REFUSALS, Answer, Operation, Parameter
from gateway.openapi.operations import OPERATIONS

_REF = "#/components/schemas/{name}"
_RETRY_AFTER = {
    "description": "Seconds until it is worth trying again; never 0, never too early.",
    "schema": {"type": "integer", "minimum": 1},
}
_LIMIT_HEADERS = {
    "RateLimit-Policy": ('"client";q=50;w=60: the limit and its window', "string"),
    "RateLimit": ('"client";r=49;t=60: what is left, seconds until something frees', "string"),
    "X-RateLimit-Limit": ("The limit", "integer"),
    "X-RateLimit-Remaining": ("What is left of it", "integer"),
    "X-RateLimit-Reset": ("When something frees, in Unix seconds", "integer"),
}


@cache
def document() -> dict[str, Any]:
    """The whole document, as JSON types."""
    schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schemas)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Task-dispatch gateway",
            "version": gateway.__version__,
            "description": "Accepts HTTP calls for later and makes them within each client's rate and concurrency.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": group} for group in dict.fromkeys(operation.group for operation in OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "adminKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Admin-Key",
                    "description": "ADMIN_API_KEY, or one of ADMIN_KEYS or ADMIN_KEYS_FILE. Each call names the role "
                    "that it needs; a key may also do what lower roles may (read, operate, admin). Without any key, "
                    "/admin is open to loopback and ADMIN_ALLOWED_IPS.",
                },
                "clientKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Of a client that was given one; with REQUIRE_CLIENT_KEY of any.",
                },
                "clientKeyHeader": {"type": "apiKey", "in": "header", "name": "X-Client-Key"},
            },
        },
    }


def _schemas() -> dict[str, Any]:
    shapes = {operation.body for operation in OPERATIONS if operation.body is not None} | {Error}
    shapes |= {
        answer.shape
        for operation in OPERATIONS
        for answer in operation.answers.values()
        if isinstance(answer.shape, type)
    }
    ordered = sorted(shapes, key=lambda shape: str(shape.__name__))
    schemas = msgspec.json.schema_components(ordered, ref_template=_REF)[1]
    # Python's anchors, which JSON Schema's dialect of regular expressions has no word for.
    text = msgspec.json.encode(schemas).replace(rb"\\A", b"^").replace(rb"\\Z", b"$")
    made: dict[str, Any] = msgspec.json.decode(text)
    return made


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "tags": [operation.group],
        "summary": operation.summary,
        "operationId": f"{operation.method}{operation.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": {
            **{str(status): _answer(answer, operation) for status, answer in operation.answers.items()},
            **{str(status): _refusal(status) for status in sorted(operation.every_refusal)},
        },
    }
    if operation.body is not None:
        example = asked(operation.body.__name__, schemas)
        made["requestBody"] = {"required": True, "content": _json(operation.body, example)}
    if operation.admin:
        # For a key, OpenAPI 3.1 lists here the roles that are needed.
        made["security"] = [{"adminKey": [str(operation.role)]}]
    elif operation.path.startswith("/v1"):
        made["security"] = [{}, {"clientKey": []}, {"clientKeyHeader": []}]
    return made


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _answer(answer: Answer, operation: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.meaning}
    if isinstance(answer.shape, str):
        made["content"] = {answer.shape: {"schema": {"type": "string"}}}
    elif answer.shape is not None:
        made["content"] = _json(answer.shape, ANSWERED.get(answer.shape))
    if operation.limited:
        made["headers"] = {
            name: {"description": meaning, "schema": {"type": kind}} for name, (meaning, kind) in _LIMIT_HEADERS.items()
        }
    return made


def _refusal(status: int) -> dict[str, Any]:
    made: dict[str, Any] = {"description": REFUSALS[status], "content": _json(Error)}
    if status in {429, 503}:
        made["headers"] = {"Retry-After": _RETRY_AFTER}
    return made


def _json(shape: Any, example: Any = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": {"$ref": _REF.format(name=shape.__name__)}}
    if example is not None:
        media["example"] = example
    return {"application/json": media}
