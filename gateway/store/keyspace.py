"""Every Redis key is built here and nowhere else; scripts get the parts they need to name what they find in data.

Clients are spread over a fixed number of partitions. On one Redis there is one, with an empty tag; on a Cluster every
key of a partition ends in the partition's hash tag, so a script touches one slot.
"""

import binascii
from typing import Final

PARTITIONS_ON_CLUSTER: Final = 64


class Keyspace:
    """Key names under one prefix. ``partitions`` of 1 means one Redis, no tags."""

    def __init__(self, prefix: str, partitions: int = 1) -> None:
        self.prefix = prefix
        self.partitions = partitions
        self.bell_head = f"{prefix}doorbell"
        self._scopes = [self._scope(partition) for partition in range(partitions)]

    def partition(self, client_id: str) -> int:
        """The partition that holds all keys of a client."""
        return binascii.crc32(client_id.encode()) % self.partitions if self.partitions > 1 else 0

    def tag(self, partition: int) -> str:
        """The suffix every key of the partition carries."""
        return "" if self.partitions == 1 else f"{{p{partition}}}"

    def _key(self, name: str, partition: int) -> str:
        return f"{self.prefix}{name}{self.tag(partition)}"

    @property
    def bells(self) -> list[str]:
        """The doorbell's channels, one a partition."""
        return [f"{self.bell_head}{self.tag(partition)}" for partition in range(self.partitions)]

    @property
    def partition_count(self) -> str:
        """String, on a Cluster: how many partitions the data is in."""
        return f"{self.prefix}partitions"

    def share(self, total: int, least: int = 1) -> int:
        """What each partition may have of a bound on all clients together, where no script sees more than one of them;
        at least what a single client may have."""
        return total if self.partitions == 1 else max(total // self.partitions, min(least, total))

    def ready(self, partition: int) -> str:
        """Sorted set: clients with something to claim, by when they became so."""
        return self._key("ready", partition)

    def due(self, partition: int) -> str:
        """Sorted set: clients with something scheduled, by the earliest due time in ms."""
        return self._key("due", partition)

    def leases(self, partition: int) -> str:
        """Sorted set: clients with calls open, by when the first lease may lapse, in ms."""
        return self._key("leases", partition)

    def active(self, partition: int) -> str:
        """Sorted set: clients with state in Redis; score 0 while they have tasks, else since when not, in ms."""
        return self._key("active", partition)

    def totals(self, partition: int) -> str:
        """Hash: how many tasks of all clients wait or run (`n`), and how many bytes they are (`b`)."""
        return self._key("totals", partition)

    def clients(self, partition: int) -> str:
        """Sorted set, all scores 0: the ids of known clients, for listing in order."""
        return self._key("clients", partition)

    @property
    def dispatcher_seen(self) -> str:
        """String: when a gateway that makes calls was last seen, in ms."""
        return self._key("dispatcher_seen", 0)

    @property
    def replicas(self) -> str:
        """Sorted set: the names of gateways by when they were last seen, in s."""
        return self._key("replicas", 0)

    @property
    def jobs(self) -> str:
        """Sorted set: the ids of the last jobs by when they were created, in ms."""
        return self._key("jobs", 0)

    @property
    def open_jobs(self) -> str:
        """Sorted set: the ids of the jobs that are to be worked on, by until when somebody does, in ms."""
        return self._key("open_jobs", 0)

    def job(self, job_id: str) -> str:
        """String: a job as JSON."""
        return self._key(f"job:{job_id}", 0)

    @property
    def tiers(self) -> str:
        """Hash: the tiers that operators have stored, as JSON by name."""
        return self._key("tiers", 0)

    @property
    def journal(self) -> str:
        """Stream: what operators changed, capped."""
        return self._key("audit", 0)

    def ended_session(self, session_id: str) -> str:
        """String: a session of the dashboard that was left before its time."""
        return self._key(f"ended_session:{session_id}", 0)

    def session_secret(self) -> str:
        """String: what signs the sessions of the dashboard."""
        return self._key("session_secret", 0)

    def wrong_keys(self, place: str, client_id: str) -> str:
        """String: when the bucket of an address's guesses at a client's key will be full again, in Unix µs; without an
        id, at operators' keys. The address comes first, so that no client's id is taken for one."""
        return self._key(f"wrong_keys:{place}:{client_id}", self._booked(client_id))

    def replica(self, name: str) -> str:
        """String: what a gateway says of itself, as JSON; gone when it is."""
        return self._key(f"replica:{name}", 0)

    def usage_minutes(self, client_id: str, hour: int) -> str:
        """Hash: what a client did in each minute of that Unix hour; "" is all of them in sum."""
        return self._key(f"usage:{client_id}:{hour}", self._booked(client_id))

    def usage_hours(self, client_id: str, day: int) -> str:
        """Hash: what a client did in each hour of that Unix day; "" is all of them in sum."""
        return self._key(f"usage_hours:{client_id}:{day}", self._booked(client_id))

    def _booked(self, client_id: str) -> int:
        return self.partition(client_id) if client_id else 0

    def most_refused(self, hour: int, partition: int) -> str:
        """Sorted set: clients by how many of their requests were refused in that Unix hour."""
        return self._key(f"most_refused:{hour}", partition)

    def most_failed(self, hour: int, partition: int) -> str:
        """Sorted set: clients by how many of their calls failed in that Unix hour."""
        return self._key(f"most_failed:{hour}", partition)

    def refused_minutes(self, day: int, partition: int) -> str:
        """Sorted set: clients by in how many minutes of that Unix day a request was refused."""
        return self._key(f"refused_minutes:{day}", partition)

    def failures(self, hour: int) -> str:
        """Hash: failed calls of that Unix hour by minute and status, and by minute and host."""
        return self._key(f"failures:{hour}", 0)

    @property
    def figures(self) -> str:
        """String: the figures of all clients together, as one process looked them up."""
        return self._key("figures", 0)

    @property
    def figures_turn(self) -> str:
        """String: whose turn it is to look them up."""
        return self._key("figures_turn", 0)

    def config(self, client_id: str) -> str:
        """String: a client's settings as JSON."""
        return self._key(f"client_config:{client_id}", self.partition(client_id))

    def signing(self, client_id: str) -> str:
        """Hash: what signs a client's deliveries, by an id, each with the time it was made."""
        return self._key(f"signing:{client_id}", self.partition(client_id))

    def client_keys(self, client_id: str) -> str:
        """Hash: the hashes of a client's keys by their ids, each with the time it was made; and that it needs one."""
        return self._key(f"client_keys:{client_id}", self.partition(client_id))

    def tasks_apart(self, client_id: str, holder: str) -> str:
        """Sorted set: tasks of a client that are in no stream: its `scheduled`, `dead` or `ended` ones."""
        return self._key(f"{holder}:{client_id}", self.partition(client_id))

    def config_pattern(self) -> str:
        """What SCAN matches to find settings another program wrote."""
        return f"{self.prefix}client_config:*"

    def config_client(self, key: str) -> str:
        """The client id in a settings key."""
        return key.removeprefix(f"{self.prefix}client_config:").partition("{")[0]

    def task(self, client_id: str, task_id: str) -> str:
        """String: a task's record."""
        return self._key(f"task:{task_id}", self.partition(client_id))

    def task_in(self, partition: int, task_id: str) -> str:
        """A task's record, where it is known of the client only in which partition it is."""
        return self._key(f"task:{task_id}", partition)

    def idempotency(self, client_id: str, key: str) -> str:
        """String: the first task of an idempotency key. Braces are escaped: they would choose the slot."""
        escaped = key.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return self._key(f"idempotency:{client_id}:{escaped}", self.partition(client_id))

    def guard(self, partition: int) -> tuple[str, ...]:
        """On a Cluster, a key that never exists, for every script to declare.

        While a slot moves key by key, a node runs a script whose declared keys it all has, and some of the keys that
        the script names itself may be on the other side: it would fail after its first writes, or begin a stream anew.
        With a declared key that is nowhere, both sides answer TRYAGAIN until the slot has moved.
        """
        return () if self.partitions == 1 else (self._key("nowhere", partition),)

    def scope(self, partition: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The KEYS and the first ARGV every script of clients begins with (lib/scope.lua reads them, and names the keys
        of a client); after these come the client's id, '' in a script of many, and the policy."""
        return self._scopes[partition]

    def _scope(self, partition: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        keys = (
            self.ready(partition),
            self.due(partition),
            self.leases(partition),
            self.active(partition),
            self.clients(partition),
            self.totals(partition),
        )
        publish = "SPUBLISH" if self.partitions > 1 else "PUBLISH"
        return keys, (self.tag(partition), self.prefix, self.bell_head, publish)
