"""What Prometheus scrapes. Plain functions that the other layers call; who calls them and when is not decided here."""

import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from gateway.metrics.depths import DEPTHS
from gateway.metrics.labels import MAX_VALUES_PER_CLIENT
from gateway.metrics.registry import INVARIANTS, Registry, answered
from gateway.metrics.tally import BOUNDS, BUCKETS, DELIVERED, FAILED
from gateway.metrics.text import CONTENT_TYPE, pieces
from gateway.metrics.usage import Counted, Counting
from gateway.models import Outcome, Verdict

__all__ = ["CONTENT_TYPE", "INVARIANTS", "MAX_VALUES_PER_CLIENT"]

_MOST_TRIPS: Final = 500
_DELIVERED: Final = Verdict.DELIVERED  # to look it up in its enum costs as much as a lookup by client

_counting = Counting()
_now = Registry(1000, None, _counting)


def configure(max_clients: int, multiprocess_dir: Path | None) -> None:
    """Start anew with METRICS_MAX_CLIENTS and, for `--workers`, the folder that the worker processes share.

    Called once, before anything is counted; earlier counts are dropped. With a folder, a worker's `render`
    answers for all workers: counters are summed, also those of workers that ended; gauges count living
    ones only (see `forget_process`).
    """
    global _now, _counting  # noqa: PLW0603 - the process has one set of metrics, as it has one log
    if multiprocess_dir is not None:
        # The library chooses between memory and files when it is imported, which may have happened already.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(multiprocess_dir)
        make_class: Any = values.MultiProcessValue
        if not getattr(values.ValueClass, "_multiprocess", False):
            cast("Any", values).ValueClass = make_class()
    _counting = Counting()
    _now = Registry(max_clients, multiprocess_dir, _counting)


def render() -> tuple[bytes, str]:
    """The exposition (Prometheus text format 0.0.4) and its content type."""
    return b"".join(exposition()), CONTENT_TYPE


def exposition() -> Iterator[bytes]:
    """The same in pieces, between which others may have their turn."""
    _now.settle()
    return pieces(_now.registry)


def of_all_workers() -> bool:
    """Whether it is put together from the files of several processes: at once, and in any thread."""
    return _now.shared


def forget_process(pid: int, multiprocess_dir: Path) -> None:
    """Drop the gauges of a worker that has ended; its counters stay."""
    mark_process_dead(pid, str(multiprocess_dir))  # type: ignore[no-untyped-call]


def enqueued(client_id: str, queue: str) -> None:
    """One task was accepted."""
    _now.enqueued[client_id][queue] += 1


def rate_limited(client_id: str, tier: str) -> None:
    """One request was refused by the window."""
    _now.limited[client_id][tier] += 1


def queue_full(client_id: str) -> None:
    """One request was refused since too many tasks of its client wait, or too many bytes of them."""
    _now.full[(_now.labels.of(client_id),)].inc()


def attempt(client_id: str, url: str, outcome: Outcome) -> None:
    """One call to a target ended; the class of its status is `none` where there was no answer."""
    attempt = outcome.attempt
    seconds = attempt.duration_ms / 1000
    tally = _counting.tallies[client_id]
    tally[BUCKETS + bisect_left(BOUNDS, seconds)] += 1
    if outcome.verdict is _DELIVERED:
        tally[DELIVERED] += 1
        _now.attempts[attempt.status].append(seconds)
    else:
        tally[FAILED] += 1
        _counting.failed(url, outcome)
        _now.attempts[outcome.verdict, attempt.status].append(seconds)


def finished(result: Literal["succeeded", "retry", "dead"], count: int = 1) -> None:
    """The outcome of an attempt was stored: this is what became of its task."""
    _now.finished[result] += count


def started_after(seconds: float) -> None:
    """A task started this long after it was due."""
    _now.start_delay[None].append(seconds)


def admin_denied(reason: Literal["certificate", "key", "guesses", "address", "role"]) -> None:
    """A call of an operator that was not let in, for want of this."""
    _now.admin_denied[(reason,)].inc()


def connection_refused(reason: Literal["too_many", "files", "slow", "large", "unread"]) -> None:
    """A connection past those that its address may have, one on which a request's head was too late or too large, or
    one whose caller did not read its answer."""
    _now.connections_refused[(reason,)].inc()


def http_request(route: str, method: str, status: int, seconds: float) -> None:
    """One request was answered. ``route`` is the pattern, never the path; odd methods count as `other`."""
    _now.requests[answered(route, method, status)].append(seconds)


def http_requests(route: str, method: str, status: int) -> Callable[[float], None]:
    """The same, for who answers many of them alike: takes the seconds."""
    return _now.requests[answered(route, method, status)].append


def redis_call(operation: str, seconds: float) -> None:
    """One round trip to Redis; ``operation`` is from a closed set."""
    durations = _now.redis_seconds[operation]
    durations.append(seconds)
    # Nearly all that is timed takes a round trip, shared by some dozens at most: this bounds what waits of everything.
    if len(durations) >= _MOST_TRIPS:
        _now.settle_durations()


def redis_error(operation: str) -> None:
    """One round trip failed."""
    _now.redis_errors[(operation,)].inc()


def show_in_flight(count: Callable[[], int]) -> None:
    """How many calls of this process are open, asked whenever somebody looks."""
    _now.in_flight.read = count


def set_max_in_flight(n: int) -> None:
    """How many calls this process may have open."""
    _now.max_in_flight.set(n)


def set_pool(in_use: int, size: int) -> None:
    """Redis connections of this process."""
    _now.pool_in_use.set(in_use)
    _now.pool_size.set(size)


def depths(client_id: str, queued: int, scheduled: int, in_flight: int, dead: int) -> None:
    """What Redis holds of a client. All zero: its gauges go away, which is also how a deleted client's do."""
    _now.everyone.depths.set(client_id, (queued, scheduled, in_flight, dead))


def keep_depths(client_ids: Collection[str]) -> None:
    """Withdraw the depths of every client that is not one of these."""
    _now.everyone.depths.keep(client_ids)


def rest_of_depths(queued: int, scheduled: int, in_flight: int, dead: int) -> None:
    """The same of all clients that `depths` is not told of, in sum."""
    _now.everyone.depths.set_rest((queued, scheduled, in_flight, dead))


def totals(queued: int, scheduled: int, in_flight: int, dead: int) -> None:
    """What Redis holds of all clients."""
    for state, n in zip(DEPTHS, (queued, scheduled, in_flight, dead), strict=True):
        _now.everyone.totals[(state,)].set(n)


def active_clients(n: int) -> None:
    """Clients whose tasks wait or run."""
    _now.everyone.active.set(n)


def upgrade_candidates(n: int) -> None:
    """Clients that were refused again and again in the last day."""
    _now.everyone.candidates.set(n)


def saturation(limit: str, share: float, clients: int) -> None:
    """The largest share of this limit that a client has used, and how many clients have used it up."""
    _now.everyone.saturation[(limit,)].set(share)
    _now.everyone.at_limit[(limit,)].set(clients)


def tiers(clients: Mapping[str, tuple[int, int]], prices: Mapping[str, float]) -> None:
    """The enabled and the disabled clients of each tier there is; a tier that is gone is told with zeros."""
    for gone in _now.everyone.tiers.difference(clients):
        _now.everyone.clients[gone, "enabled"].set(0)
        _now.everyone.clients[gone, "disabled"].set(0)
    _now.everyone.tiers.update(clients)
    for tier, (enabled, disabled) in clients.items():
        _now.everyone.clients[tier, "enabled"].set(enabled)
        _now.everyone.clients[tier, "disabled"].set(disabled)
    _now.everyone.show_revenue({tier: price * clients.get(tier, (0, 0))[0] for tier, price in prices.items()})


def oldest_waiting(seconds: float) -> None:
    """How long the task waits that waits longest, of all clients."""
    _now.everyone.oldest_waiting.set(seconds)


def invariant_violated(kind: str) -> None:
    """The audit found two things that must agree and don't; ``kind`` is one of `INVARIANTS`."""
    _now.violations[(kind,)].inc()


def override(result: Literal["applied", "refused"]) -> None:
    """A request brought a rate limit of its own."""
    _now.overrides[(result,)].inc()


def client_key_refused(reason: Literal["missing", "invalid", "guesses"]) -> None:
    """A request did not show the key of the client it named, or too many wrong ones came before it."""
    _now.client_keys_refused[(reason,)].inc()


def egress_refused(reason: str, stage: Literal["enqueue", "dial"]) -> None:
    """The egress rule refused a target; ``reason`` is from a closed set."""
    _now.refused[reason, stage].inc()


def settle() -> None:
    """Let other workers' `render` tell of what this process counted; to be called every few seconds."""
    _now.settle()


def take_usage() -> Counted:
    """What clients did since this was last called."""
    _now.enqueued.settle()
    _now.limited.settle()
    return _counting.take()


def usage_lost(count: int) -> None:
    """So many requests and calls were counted and did not get into what is kept of their clients' usage."""
    _now.usage_lost.inc(count)
