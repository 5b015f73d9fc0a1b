"""Files that hold for a running gateway once they change: admin keys and certificates. What is read from them, whoever
watches them knows."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

EVERY_SECONDS = 1.0

# Of each file: what tells that it is another one now. None: it can't be looked at.
_Stamp = tuple[int, int, int] | None


class WatchedFiles:
    """The files of one setting, which belong together. ``load`` reads them anew, all or nothing, and raises ValueError
    or OSError where they can't be used: then what was read before holds on. To be made before they are read, so that no
    change falls in between."""

    def __init__(self, setting: str, paths: Iterable[Path], load: Callable[[], object]) -> None:
        self._setting = setting
        self._paths = tuple(paths)
        self._load = load
        self._seen = self._stamps()

    def look(self, *, anyway: bool = False) -> None:
        """Read them if they changed since the last look, or ``anyway``; the log says how it went, once a change."""
        stamps = self._stamps()
        if stamps == self._seen and not anyway:
            return
        self._seen = stamps
        try:
            self._load()
        except (ValueError, OSError) as problem:
            # ssl.SSLError is an OSError; what it and the parsers say repeats nothing of a file.
            log.warning("reload_failed", setting=self._setting, message=f"what was read before holds on: {problem}")
        except Exception:
            # A defect: the next change is looked at all the same, or a key that was taken away would hold for good.
            log.exception("reload_failed", setting=self._setting)
        else:
            log.info("reloaded", setting=self._setting)

    def _stamps(self) -> tuple[_Stamp, ...]:
        # A file that is swapped by a symbolic link or by a rename has another inode, whatever its time says.
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def hear_hangup(callback: Callable[[], object]) -> None:
    """Call it on SIGHUP, which then ends the process no more; not in a terminal, which tells its end by it."""
    if not os.isatty(0):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, callback)


@asynccontextmanager
async def reloading(watched: Iterable[WatchedFiles]) -> AsyncIterator[None]:
    """Look at all of them each second, and on SIGHUP read them anyway, while the context is open."""
    files = tuple(watched)

    def reread() -> None:
        for each in files:
            each.look(anyway=True)

    async def looking() -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            for each in files:
                each.look()

    hear_hangup(reread)
    ticker = asyncio.create_task(looking())
    try:
        yield
    finally:
        hear_hangup(lambda: None)
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
