"""The task that everybody gets, and the bodies it is enqueued with. Peers use it too, so it imports nothing of the
gateway."""

import json
from typing import Any

TASK_BYTES = 200
BATCH = 100


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def task(target: str, number: int | None = None) -> dict[str, Any]:
    """A task of exactly `TASK_BYTES` as compact JSON; ``number`` is found again in the target's log of arrivals.

    >>> len(compact(task("http://127.0.0.1:9000"))), len(compact(task("http://127.0.0.1:9000", 7)))
    (200, 200)
    """
    url = f"{target}/hook" if number is None else f"{target}/hook?n={number}"
    made = {"url": url, "method": "POST", "headers": {"Content-Type": "text/plain"}, "body": ""}
    made["body"] = "x" * (TASK_BYTES - len(compact(made)))
    return made


def single(client: str, work: dict[str, Any]) -> str:
    """The body of an enqueue."""
    return compact({"client_id": client, "task": work})


def batch(client: str, work: dict[str, Any], count: int = BATCH) -> str:
    """The body of a batch of the same task."""
    return compact({"client_id": client, "tasks": [{"task": work}] * count})
