"""The gateway without one of its parts, so that `bench.costs` can tell what that part costs.

python -m bench.without monitoring|security serve …
"""

import sys
from collections.abc import Callable
from typing import Any

from gateway import metrics
from gateway.api import express
from gateway.cli import main
from gateway.dispatch import sender
from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http import client, message
from gateway.middleware.guesses import Guesses
from gateway.middleware.limits import Limits
from gateway.store.payload import Payloads
from gateway.store.rounds import ActiveClients, Census


def _nothing(*_: Any, **__: Any) -> None:
    return None


async def _no_tasks(*_: Any) -> int:
    return 0


async def _no_clients(*_: Any) -> None:
    return None


def _put(owner: Any, name: str, value: Callable[..., Any]) -> None:
    getattr(owner, name)  # what is not there any more would cost nothing, and look cheap
    setattr(owner, name, value)


def _without_monitoring() -> None:
    """Nothing is counted, booked to a client, or looked at for the snapshot."""
    counted = ("attempt", "enqueued", "finished", "http_request", "rate_limited", "redis_call", "set_in_flight")
    for name in (*counted, "started_after"):
        _put(metrics, name, _nothing)
    _put(ActiveClients, "go_on", _no_tasks)
    _put(Census, "go_on", _no_clients)


def _unchecked(method: str, target: message.Target, headers: Any, body: bytes | None, via: Any = None) -> Any:
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {len(body or b'')}\r\n\r\n")
    return message.Request("\r\n".join(lines).encode(), body, method == "HEAD")


def _without_security() -> None:
    """Whoever asks is believed, whatever is asked for is called, and nothing is bounded, signed or sealed."""
    made = sender.HttpSender.__init__

    def trusting(self: sender.HttpSender, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs | {"keys": None, "hosts": None})

    _put(sender.HttpSender, "__init__", trusting)
    _put(client, "encode", _unchecked)
    _put(express, "shows_its_key", lambda *_, **__: True)
    _put(Guesses, "concern", lambda *_: False)
    _put(EgressGuard, "check_literal", _nothing)
    _put(Limits, "enter", _nothing)
    _put(Limits, "leave", _nothing)
    _put(Payloads, "ready", lambda _, task: task)
    _put(Payloads, "closed", lambda _, __, attempt: attempt)


PARTS: dict[str, Callable[[], None]] = {"monitoring": _without_monitoring, "security": _without_security}

if __name__ == "__main__":
    PARTS[sys.argv.pop(1)]()
    main()
