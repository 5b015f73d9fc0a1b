"""TCP proxies between one gateway and the servers of its Redis: they hold everything back, or lose replies."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import hiredis


class Network:
    """What one gateway reaches Redis through: a proxy for each server there is, at these ports."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._proxies = {port: Proxy(port) for port in ports}

    @property
    def detours(self) -> str:
        """For the gateway: which port to take instead of which."""
        return ",".join(f"{port}={proxy.port}" for port, proxy in self._proxies.items())

    @property
    def dropped(self) -> int:
        return sum(proxy.dropped for proxy in self._proxies.values())

    async def start(self) -> None:
        await asyncio.gather(*(proxy.start() for proxy in self._proxies.values()))

    def hold(self) -> None:
        for proxy in self._proxies.values():
            proxy.hold()

    def release(self) -> None:
        for proxy in self._proxies.values():
            proxy.release()

    def drop(self, every: int) -> None:
        """From now on each server's every n-th reply is lost; 0: none."""
        for proxy in self._proxies.values():
            proxy.drop_every = every

    async def stop(self) -> None:
        await asyncio.gather(*(proxy.stop() for proxy in self._proxies.values()))


class Proxy:
    """``hold()`` is a network that loses packets: nothing gets through until ``release()``, and then all of it, late.
    With ``drop_every`` n, the connection breaks instead of carrying each n-th reply: the command has run, its caller
    can't know."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.drop_every = 0
        self.dropped = 0
        self._to = port
        self._replies = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def hold(self) -> None:
        self._flowing.clear()

    def release(self) -> None:
        self._flowing.set()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the aborted transports close in the loop's next turn

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A cancelled task of a stream server is reported as an error; at the end of a run it is none.
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer.transport):
            await self._flowing.wait()
            onward = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, onward[1], None))
                    group.create_task(self._pump(onward[0], writer, hiredis.Reader()))
            except* OSError:
                pass
            finally:
                onward[1].transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, replies: hiredis.Reader | None
    ) -> None:
        while data := await source.read(65536):
            await self._flowing.wait()
            kept = data if replies is None else self._before_a_loss(data, replies)
            if sink.transport.is_closing():  # asyncio would ignore the write, uvloop raises RuntimeError
                raise ConnectionResetError
            sink.write(kept)
            await sink.drain()
            if len(kept) < len(data):
                raise ConnectionResetError
        # One end has closed: a command that was on its way still arrives before the other end hears of it.
        raise ConnectionResetError

    def _before_a_loss(self, data: bytes, replies: hiredis.Reader) -> bytes:
        """The replies up to the one that is lost; all of them where none is."""
        whole = 0  # bytes up to the end of the last reply that is complete
        fed = 0
        for line in data.splitlines(keepends=True):
            replies.feed(line)
            fed += len(line)
            while replies.gets() is not False:
                self._replies += 1
                if self.drop_every > 0 and self._replies % self.drop_every == 0:
                    self.dropped += 1
                    return data[:whole]
                whole = fed
        return data
