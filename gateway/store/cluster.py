"""A Redis Cluster: who owns which slot, and a link that sends each command to the owner of its key."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import RedisError

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.batching import MultiplexedLink
from gateway.store.connection import MakeLink, arguments, ask, connect
from gateway.store.keyspace import Keyspace
from gateway.store.link import Command, CommandError, Dial, describe

log = structlog.get_logger()

Address = tuple[str, int]
_Ranges = tuple[tuple[int, int, Address], ...]

_SLOTS: Final = 16384
_KEYLESS: Final = {"PING", "INFO", "CONFIG", "TIME", "SCRIPT"}
_SCRIPTED: Final = {"EVALSHA", "EVAL"}
_ASKED: Final = 5  # nodes whose word is taken for the map: one that was cut off must not be the only one
_ASK_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 0.25
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1


class RedisCluster:
    """A Cluster, found through one of its nodes."""

    sharded = True

    def __init__(self, settings: Settings, url: str, keyspace: Keyspace) -> None:
        self._arguments = arguments(settings, url)
        self._arguments.pop("db", None)
        self._timeout = settings.redis_timeout
        self._map = SlotMap(self._arguments, keyspace)

    def link(self, make: MakeLink) -> "ClusterLink":
        """A link with a connection of its own to each node it needs."""
        return ClusterLink(self._map, lambda address: make(partial(self._dial, address)), self._timeout)

    async def homes(self, keys: Sequence[str]) -> list[tuple[Dial, list[str]]]:
        """The primaries of these keys and channels."""
        await self._map.load()
        grouped: dict[Address, list[str]] = {}
        for key in keys:
            grouped.setdefault(self._map.owner(key_slot(key.encode())), []).append(key)
        return [(partial(self._dial, address), those) for address, those in grouped.items()]

    def nodes(self) -> list[Address]:
        """Host and port of every node, as far as they are known by now."""
        return list(self._map.nodes)

    async def servers(self) -> list[tuple[str, Dial]]:
        """Every primary."""
        await self._map.load()
        return [(f"{host}:{port}", partial(self._dial, (host, port))) for host, port in self._map.primaries()]

    async def watch(self) -> None:
        """Nodes say themselves where a slot has gone."""

    async def _dial(self, address: Address) -> AbstractConnection:
        return await connect({**self._arguments, "host": address[0], "port": address[1]})


class SlotMap:
    """Which primary owns which slot, as most of the asked nodes say.

    Redirections correct it, losses have it loaded anew.
    """

    def __init__(self, at: dict[str, Any], keyspace: Keyspace) -> None:
        self._arguments = at
        self._keyspace = keyspace
        self.nodes: set[Address] = {(at.get("host", "localhost"), at.get("port", 6379))}
        self._owners: list[Address | None] = [None] * _SLOTS
        self._loaded_at = 0.0
        self._loading: asyncio.Task[None] | None = None
        self._agreed = False
        self._disagreement = ""

    @property
    def loaded(self) -> bool:
        """Whether commands may be sent by it."""
        return self._agreed

    def owner(self, slot: int) -> Address:
        """The slot's primary; raises StoreUnavailable where it has none."""
        found = self._owners[slot]
        if found is None:
            self.suspect()
            raise StoreUnavailable("The Redis Cluster has no node for this client's data; nothing was stored.")
        return found

    def known(self, slot: int) -> Address | None:
        """The same, None where it has none."""
        return self._owners[slot]

    def primaries(self) -> list[Address]:
        """Every node that owns slots."""
        return list(dict.fromkeys(owner for owner in self._owners if owner is not None))

    def moved(self, slot: int, address: Address) -> None:
        """A node said who owns the slot now; where one moved others may have."""
        self._owners[slot] = address
        self.nodes.add(address)
        self.suspect()

    def suspect(self) -> None:
        """Load the map anew soon, while work goes on with what is known."""
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(_told)

    async def load(self) -> None:
        """Have the map anew; all who ask at once share one look. Raises StoreUnavailable."""
        self.suspect()
        assert self._loading is not None
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        if self._agreed:
            await asyncio.sleep(max(0.0, self._loaded_at + _AGAIN_SECONDS - loop.time()))
        known = list(self.nodes)
        asked = random.sample(known, min(_ASKED, len(known)))
        answers = await asyncio.gather(*map(self._view, asked), return_exceptions=True)
        self._loaded_at = loop.time()
        views = Counter(answer for answer in answers if not isinstance(answer, BaseException))
        if not views:
            problem = next(answer for answer in answers if isinstance(answer, BaseException))
            metrics.redis_error("cluster")
            log.error("redis_error", redis_operation="cluster", error=describe(problem))
            if isinstance(problem, StoreUnavailable):
                raise problem
            raise StoreUnavailable("The Redis Cluster is out of reach; nothing was stored.") from problem
        ((ranges, nodes), _) = views.most_common(1)[0]
        owners: list[Address | None] = [None] * _SLOTS
        for first, last, address in ranges:
            owners[first : last + 1] = [address] * (last + 1 - first)
        self._owners = owners
        self.nodes |= nodes
        if not self._agreed:
            await self._agree()

    async def _view(self, address: Address) -> tuple[_Ranges, frozenset[Address]]:
        rows = await self._ask(address, "CLUSTER", "SLOTS")
        ranges, nodes = [], set()
        for first, last, *members in rows:
            # A node that does not know its own name leaves it out: it is the one that was asked.
            places = [((member[0] or b"").decode().strip("?") or address[0], int(member[1])) for member in members]
            ranges.append((int(first), int(last), places[0]))
            nodes |= set(places)
        return tuple(sorted(ranges)), frozenset(nodes)

    async def _agree(self) -> None:
        """The number of partitions decides where a client's keys are, so all gateways must use the same for ever."""
        if self._disagreement:
            raise StoreUnavailable(self._disagreement)
        key = self._keyspace.partition_count
        mine = self._keyspace.partitions
        try:
            place = self.owner(key_slot(key.encode()))
            stored = await self._ask(place, "GET", key)
            if stored is None:
                await self._ask(place, "SET", key, mine, "NX")
                stored = await self._ask(place, "GET", key)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable("The Redis Cluster is out of reach; nothing was stored.") from error
        if stored != str(mine).encode():
            self._disagreement = (
                f"The data of this Cluster is in {(stored or b'no').decode()} partitions and this gateway would use "
                f"{mine}: run the version that stored it, or set another KEY_PREFIX."
            )
            log.error("redis_error", redis_operation="partitions", error=self._disagreement)
            raise StoreUnavailable(self._disagreement)
        self._agreed = True

    async def _ask(self, address: Address, *command: str | int) -> Any:
        async with asyncio.timeout(_ASK_SECONDS):
            [reply] = await ask({**self._arguments, "host": address[0], "port": address[1]}, command)
            return reply


class ClusterLink:
    """A `Link` over one multiplexed link a node. Only what certainly did not run is sent a second time."""

    def __init__(self, slots: SlotMap, make: Any, timeout: float) -> None:
        self._slots = slots
        self._make = make
        self._timeout = timeout
        self._links: dict[Address, MultiplexedLink] = {}
        self._closed = False

    async def execute(self, *command: str | bytes | int | float) -> Any:
        """Send the command to the owner of its key; one without a key to any primary."""
        if not self._slots.loaded:
            await self._first_map()
        slot = _slot(command)
        return await (self._anywhere(command) if slot is None else self._follow(slot, command))

    def begin(self, *command: str | bytes | int | float) -> Awaitable[Any]:
        """As the `Link` has it, where the owner of the key is known and connected; else sent when it is awaited."""
        slot = _slot(command)
        if slot is None or not self._slots.loaded or not self._reached(slot):
            return self.execute(*command)
        return self._follow(slot, command, self._send(slot, command))

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """All keys that match, on all primaries."""
        if not self._slots.loaded:
            await self._first_map()
        for address in self._slots.primaries():
            async for key in self._node(address).scan(pattern):
                yield key

    async def close(self) -> None:
        """Close the connections to all nodes."""
        self._closed = True
        await asyncio.gather(*(link.close() for link in self._links.values()))

    async def _first_map(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.load()
        except TimeoutError:
            raise StoreUnavailable("The Redis Cluster is out of reach; nothing was stored.") from None

    def _node(self, address: Address) -> MultiplexedLink:
        link = self._links.get(address)
        if link is None:
            if self._closed:
                raise StoreUnavailable("The gateway is stopping.")
            link = self._links[address] = self._make(address)
        return link

    def _reached(self, slot: int) -> bool:
        owner = self._slots.known(slot)
        return owner in self._links and self._links[owner].connected

    async def _anywhere(self, command: Command) -> Any:
        places = self._slots.primaries()
        places.sort(key=lambda address: address not in self._links or not self._links[address].connected)
        for last, address in enumerate(places, 1):
            try:
                return await self._node(address).execute(*command)
            except StoreUnavailable as error:
                self._slots.suspect()
                if error.unknown or last == len(places):
                    raise
        raise StoreUnavailable("The Redis Cluster has no nodes; nothing was stored.")

    def _send(self, slot: int, command: Command, asking: Address | None = None) -> Awaitable[Any]:
        node = self._node(asking or self._slots.owner(slot))
        if asking is not None:
            node.send("ASKING").add_done_callback(_told)
        return node.begin(*command)

    async def _follow(self, slot: int, command: Command, begun: Awaitable[Any] | None = None) -> Any:
        """The reply, from wherever the command is sent on to; ``begun``: it is on its way to the slot's owner."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        pause = 0.0
        asking: Address | None = None
        while True:
            try:
                return await (begun or self._send(slot, command, asking))
            except StoreUnavailable:
                self._slots.suspect()
                raise
            except CommandError as error:
                asking, begun = None, None
                if error.code == "MOVED":
                    self._slots.moved(slot, _place(error, node_host=self._slots.owner(slot)[0]))
                elif error.code == "ASK":
                    asking = _place(error, node_host=self._slots.owner(slot)[0])
                else:
                    if error.code in {"CLUSTERDOWN", "READONLY", "MASTERDOWN"}:
                        self._slots.suspect()
                    if error.code != "TRYAGAIN":
                        raise
                    # Part of the keys has moved, and nothing can be done until all have.
                    pause = pause or _FIRST_PAUSE
                if loop.time() + pause > end:
                    raise
            # The first redirection is followed at once; who is sent to and fro waits longer each time.
            await asyncio.sleep(pause)
            pause = min(max(pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)


def _slot(command: Command) -> int | None:
    """The slot of its key, None where it has none; scripts declare all of theirs in one."""
    name = command[0]
    if name in _KEYLESS or (name in _SCRIPTED and not command[2]):
        return None
    key = command[3 if name in _SCRIPTED else 1]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _place(error: CommandError, node_host: str) -> Address:
    """Where "MOVED 3999 127.0.0.1:6381" points; without a host it is the one that answered."""
    host, _, port = str(error).split(" ")[2].rpartition(":")
    return host.strip("[]?") or node_host, int(port)


def _told(done: "asyncio.Future[Any]") -> None:
    """Who needs this result asks for it elsewhere; unheard it would be logged as lost."""
    if not done.cancelled():
        done.exception()
