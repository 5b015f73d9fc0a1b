"""Waiting in tests: for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

DEADLINE = 10.0


async def until(condition: Callable[[], Any], seconds: float = DEADLINE, tell: Callable[[], str] = str) -> None:
    """Poll a condition (plain or a coroutine function) until it holds; ``tell`` says more where it never does."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        assert time.monotonic() < end, f"the condition did not come true in time {tell()}"
        await asyncio.sleep(0.01)
