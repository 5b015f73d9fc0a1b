"""What a reply is to who waits for it; as `batching` hands replies out, an error of Redis is a value."""

import asyncio
from typing import Any, Final

import hiredis

from gateway.errors import StoreUnavailable
from gateway.store.link import CommandError

_NOT_DURABLE: Final = "Fewer replicas than DURABILITY asks for confirmed it in time."


async def result_of(sent: asyncio.Future[Any]) -> Any:
    """The reply to come; raises CommandError where it is an error."""
    reply = await sent
    if isinstance(reply, hiredis.ReplyError):
        raise CommandError(str(reply))
    return reply


def answered(future: asyncio.Future[Any]) -> bool:
    """Whether there was a reply, and no error."""
    return future.exception() is None and not isinstance(future.result(), hiredis.ReplyError)


def hand_over(early: asyncio.Future[Any], future: asyncio.Future[Any], *, met: bool) -> None:
    """Give the caller the reply that was held; errors of Redis need no confirmation, since nothing was stored."""
    lost = early.exception()
    if future.done():
        return
    if lost is not None:
        future.set_exception(lost)
    elif met or isinstance(early.result(), hiredis.ReplyError):
        future.set_result(early.result())
    else:
        future.set_exception(StoreUnavailable(_NOT_DURABLE, unknown=True))
