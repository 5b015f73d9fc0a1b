"""What a fault does inside a gateway's process; Python imports this at the start where it finds it.

CLOCK_OFFSET puts its wall clock off by so many seconds. DETOURS ("6379=41001,6380=41002") has connections to a port of
Redis go to another one, where a proxy stands for the network in between: a Cluster and Sentinels name their ports
themselves.
"""

import asyncio
import os
import time
from typing import Any

_OFFSET = float(os.environ.get("CLOCK_OFFSET", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _OFFSET
time.time_ns = lambda: _time_ns() + int(_OFFSET * 1e9)

_DETOURS = dict(detour.split("=") for detour in os.environ.get("DETOURS", "").split(",") if detour)
_open_connection = asyncio.open_connection


async def _around(
    host: str | None = None, port: int | None = None, **more: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await _open_connection(host, int(_DETOURS.get(str(port), port or 0)), **more)


if _DETOURS:
    asyncio.open_connection = _around
