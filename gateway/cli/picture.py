"""What `/admin/overview` answers, put into words and tables: for `gateway stats` in one piece, for `gateway top` as
panels. No I/O."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from gateway.cli.output import grid

_BARS = "▁▂▃▄▅▆▇█"
_MINUTES = ("admitted", "refused", "delivered", "failed")


class Ranking(NamedTuple):
    """The first few of something, most first: a title, and the table below it."""

    title: str
    columns: Sequence[str]
    rows: list[tuple[str, ...]]

    def table(self) -> Table | Text:
        """The table; where there is nothing to rank, a word instead."""
        return grid(self.columns, self.rows) if self.rows else Text("none", style="dim")


def facts(seen: dict[str, Any]) -> Table:
    """The figures of all clients, one subject a line."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, told, style in _facts(seen):
        made.add_row(name, Text(told, style=style))
    return made


def rankings(seen: dict[str, Any], most: int) -> list[Ranking]:
    """Who is refused, who waits, how calls fail and whose, and of which targets: at most ``most`` of each."""
    failures = seen["failures"]
    return [
        Ranking(
            "refused most in the last hour",
            ("client", "tier", "refused", "admitted"),
            _rows(seen["refused_most"], most, "client_id", "tier", "refused", "admitted"),
        ),
        Ranking(
            "waiting longest",
            ("client", "waiting", "queued", "scheduled", "in_flight", "dead"),
            [
                (row["client_id"], lasting(row["seconds"]), *_cells(row, "queued", "scheduled", "in_flight", "dead"))
                for row in seen["waiting_longest"][:most]
            ],
        ),
        Ranking(
            "failures of the last hour",
            ("status", "count"),
            _rows(failures["by_status"], most, "status", "count"),
        ),
        Ranking(
            "failed most in the last hour",
            ("client", "tier", "failed", "delivered"),
            _rows(seen["failed_most"], most, "client_id", "tier", "failed", "delivered"),
        ),
        Ranking(
            "failing targets of the last hour", ("host", "count"), _rows(failures["by_host"], most, "host", "count")
        ),
    ]


def trend(seen: dict[str, Any], width: int, bars: str = _BARS) -> Table:
    """The last minutes, oldest first, as many as fit: a row of bars for each figure, and its number in the last whole
    one."""
    made = Table.grid(padding=(0, 2))
    minutes = seen["minutes"][-max(1, width) :]
    for name in _MINUTES:
        counts = [minute[name] for minute in minutes]
        last = counts[-2] if len(counts) > 1 else 0
        made.add_row(Text(name, style="bold"), Text(spark(counts, bars)), Text(f"{last} a minute", style="dim"))
    return made


def spark(counts: Sequence[int], bars: str = _BARS) -> str:
    """A bar for each count, the highest for the greatest; a blank for none.

    >>> spark([0, 1, 4, 8])
    ' ▁▄█'
    """
    most = max(counts, default=0)
    return "".join(" " if count == 0 else bars[-(-count * len(bars) // most) - 1] for count in counts)


def lasting(seconds: float | None) -> str:
    """A duration as one reads it.

    >>> [lasting(seconds) for seconds in (None, 0.0123, 12.5, 75, 7260, 200000)]
    ['-', '12 ms', '12.5 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while not parts[0][0]:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def _facts(seen: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    totals, clients, full, hour = seen["totals"], seen["clients"], seen["saturation"], seen["last_hour"]
    running = f"{totals['in_flight']} of {full['max_in_flight']} in flight"
    yield "tasks", f"{totals['queued']} queued, {totals['scheduled']} scheduled, {running}, {totals['dead']} dead", ""
    kinds = f"{clients['known']} known, {clients['disabled']} disabled, {clients['active']} with tasks"
    yield "clients", kinds, ""
    reached = [row for row in full["clients"] if row["at_limit"]]
    told = ", ".join(f"{row['at_limit']} at their {row['limit']}" for row in reached)
    nearest = ", ".join(f"{row['limit']} {row['highest']:.0%}" for row in full["clients"])
    yield "limits", f"{told or 'no client is at one'} (highest: {nearest})", "yellow" if reached else ""
    calls = f"{hour['delivered']} delivered, {hour['failed']} failed"
    times = f"p50 {lasting(hour['duration_p50'])}, p95 {lasting(hour['duration_p95'])}"
    yield "last hour", f"{hour['admitted']} admitted, {hour['refused']} refused, {calls}, {times}", ""
    yield "redis", *_redis(seen["redis"])
    names = [replica["name"] for replica in seen["replicas"]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    yield "replicas", (", ".join(names[:3]) or "none") + more, "" if names else "red"
    oldest = seen["oldest_waiting"]
    if oldest is None:
        yield "oldest", "no task waits that is due", ""
    else:
        what = f"{oldest['task_id']} of {oldest['client_id']} in {oldest['queue']}"
        yield "oldest", f"{what} waits for {lasting(oldest['seconds'])}: {oldest['message']}", "yellow"


def _redis(redis: dict[str, Any]) -> tuple[str, str]:
    most = redis["memory_max_bytes"]
    memory = _bytes(redis["memory_used_bytes"]) + (f" of {_bytes(most)}" if most else "")
    kept = redis["persistence"] if redis["persistence_ok"] else f"{redis['persistence']} fails"
    copies = f"{redis['role']} with {redis['connected_replicas']} replicas"
    told = f"{redis['server']} {redis['version']}, {redis['latency_ms']:.3g} ms, {memory}, persistence {kept}, {copies}"
    return told, "" if redis["ok"] else "red"


def _bytes(count: int) -> str:
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.4g} {units[0]}"


def _rows(found: list[dict[str, Any]], most: int, *names: str) -> list[tuple[str, ...]]:
    return [_cells(row, *names) for row in found[:most]]


def _cells(row: dict[str, Any], *names: str) -> tuple[str, ...]:
    return tuple("-" if row[name] is None else str(row[name]) for name in names)
