"""Examples of whole bodies: what a caller sends is put together from the examples of its fields; answers are written
here, and the tests hold each against its shape."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.openapi import answers, task_answers
from gateway.openapi.operators_examples import OPERATORS_ANSWERED, OPERATORS_TASK, TASK

Schema = Mapping[str, Any]

# It is given instead of another field, which the example has.
_LEFT_OUT: Final = {"run_at"}

_ID: Final = "01a20d7308f71018f81f2a000000"
_CLIENT: Final = {
    "client_id": "my-service-123",
    "tier": "premium",
    "rate_limit": {"max_concurrent": 20, "requests_per_min": 1000},
    "allowed_queues": None,
    "enabled": True,
    "created_at": "2024-01-15T10:30:00Z",
    "updated_at": "2024-01-15T10:30:00Z",
    "source": "tier",
}
_TIERS: Final[dict[str, dict[str, Any]]] = {
    "free": {"max_concurrent": 1, "requests_per_min": 10},
    "premium": {"max_concurrent": 20, "requests_per_min": 1000, "price": 49.5},
}

ANSWERED: Final[dict[type, Any]] = {
    **OPERATORS_ANSWERED,
    answers.Alive: {"status": "ok"},
    answers.BatchResult: {
        "results": [
            {"status": 201, "task_id": _ID},
            {
                "status": 429,
                "error": "Rate limit exceeded",
                "message": "exceeded 50 requests per minute (current: 51)",
                "retry_after": 12,
            },
        ],
        "accepted": 1,
        "rejected": 1,
    },
    answers.Client: _CLIENT,
    answers.Clients: {"clients": [_CLIENT], "count": 1, "next_cursor": None},
    task_answers.Done: {"client_id": "my-service-123", "tasks": 12},
    answers.Enqueued: {
        "status": "enqueued",
        "task_id": _ID,
        "queue": "default",
        "client_id": "my-service-123",
        "rate_limit": {"max_concurrent": 3, "requests_per_min": 50},
    },
    answers.Explanation: {
        "task_id": _ID,
        "client_id": "my-service-123",
        "queue": "default",
        "state": "queued",
        "constraint": "concurrency",
        "message": "the client has 3 calls in flight, and 3 is its limit",
        "since": None,
        "until": None,
        "in_flight": 3,
        "max_concurrent": 3,
        "blocking": ["01a20d7308f71018f81f2a000001"],
    },
    task_answers.OperatorsTask: OPERATORS_TASK,
    answers.Task: TASK,
    task_answers.TaskPage: {"tasks": [OPERATORS_TASK], "next_cursor": None},
    answers.Tier: {**_TIERS["premium"], "name": "premium", "source": "stored"},
    answers.Tiers: {"tiers": _TIERS},
    answers.Usage: {
        "client_id": "my-service-123",
        "tier": "default",
        "rate_limit": {"max_concurrent": 3, "requests_per_min": 50},
        "source": "tier",
        "current_usage": 12,
        "remaining": 38,
        "reset": 41,
        "in_flight": 1,
        "queued": 4,
    },
}


def asked(name: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Of a body that a caller sends: its required fields, and those that say what may stand there."""
    schema = schemas[name]
    made = {}
    for field, of in schema["properties"].items():
        if field not in _LEFT_OUT:
            found = _value(of, schemas)
            if found is not None or field in schema.get("required", ()):
                made[field] = found
    return made


def _value(schema: Schema, schemas: Mapping[str, Schema]) -> Any:
    if "examples" in schema:
        return schema["examples"][0]
    for choice in (schema, *schema.get("anyOf", ())):
        if "$ref" in choice:
            return asked(choice["$ref"].rsplit("/", 1)[1], schemas)
    return [_value(schema["items"], schemas)] if schema.get("type") == "array" else None
