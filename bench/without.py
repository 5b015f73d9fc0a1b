"""The gateway with one of its parts taken away and put back, over and over, while it is under load: what the part costs
is the difference, a fraction of a second apart and in one process, whatever else the machine does.

python -m bench.without monitoring|security FILE serve …; the windows go to FILE as JSON at the end.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from gateway import metrics
from gateway.api import express
from gateway.cli import main
from gateway.dispatch import sender
from gateway.dispatch.attempts import Attempts
from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.http import client, message
from gateway.middleware.guesses import Guesses
from gateway.store.payload import Payloads

WINDOW_SECONDS: Final = 0.2

Change = tuple[Any, str, Any]  # an attribute, and what stands there meanwhile


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _unchecked(method: str, target: message.Target, headers: Any, body: bytes | None, via: Any = None) -> Any:
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {len(body or b'')}\r\n\r\n")
    return message.Request("\r\n".join(lines).encode(), body, method == "HEAD")


_senders: list[sender.HttpSender] = []


def _without_monitoring() -> list[Change]:
    """Nothing is counted, nor booked to a client."""
    counted = ("attempt", "enqueued", "finished", "http_request", "rate_limited", "redis_call", "set_in_flight")
    return [(metrics, name, _nothing) for name in (*counted, "started_after")]


def _without_security() -> list[Change]:
    """Whoever asks is believed, what is asked for is called as it is, and nothing is looked at for being sealed."""
    return [
        *((one, name, None) for one in _senders for name in ("_keys", "_hosts")),
        (client, "encode", _unchecked),
        (express, "shows_its_key", lambda *_, **__: True),
        (Guesses, "concern", lambda *_: False),
        (EgressGuard, "check_literal", _nothing),
        (Payloads, "ready", lambda _, task: task),
        (Payloads, "closed", lambda _, __, attempt: attempt),
    ]


PARTS: Final[dict[str, Callable[[], list[Change]]]] = {
    "monitoring": _without_monitoring,
    "security": _without_security,
}


class Count:
    """How many requests or calls have ended."""

    def __init__(self) -> None:
        self.ended = 0

    def watch(self, owner: type, name: str) -> None:
        """Count the calls of a method."""
        method = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.ended += 1
            return method(*args, **kwargs)

        setattr(owner, name, counted)


@contextmanager
def changed(changes: list[Change]) -> Iterator[None]:
    """So as they say, until the context ends."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def windows(part: str, count: Count) -> Iterator[tuple[bool, int, float]]:
    """Without end: whether the part was there, how many ended meanwhile, and the CPU seconds of the process."""
    for there in cycle((True, False)):
        with changed([] if there else PARTS[part]()):
            ended, spent = count.ended, time.process_time()
            time.sleep(WINDOW_SECONDS)
            yield there, count.ended - ended, time.process_time() - spent


def _note(part: str, file: Path, count: Count) -> None:
    found = []
    for window in windows(part, count):
        found.append(window)
        file.write_text(json.dumps(found))


def _start(part: str, file: Path) -> None:
    made = sender.HttpSender.__init__

    def known(self: sender.HttpSender, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        _senders.append(self)

    sender.HttpSender.__init__ = known  # type: ignore[method-assign]
    count = Count()
    count.watch(express.Express, "_decided")
    count.watch(Attempts, "finish")
    threading.Thread(target=_note, args=(part, file, count), daemon=True).start()


if __name__ == "__main__":
    _start(sys.argv.pop(1), Path(sys.argv.pop(1)))
    main()
