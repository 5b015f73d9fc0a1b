"""Asking for something at once, whether or not its answer must be waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def begun(begin: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """What comes of ``begin(…)``, also of what it raises before it begins to wait."""
    try:
        made = begin(*args, **kwargs)
    except Exception as error:
        failed: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed
    return made if isinstance(made, asyncio.Future) else asyncio.ensure_future(made)
