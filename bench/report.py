"""The report of a run: tables, verdicts and method as Markdown. The text of docs/performance.md lives here, so that the
document and its numbers come from the same run."""

from pathlib import Path

from bench.chart import Panel, Row, drawn
from bench.contestants import FLOOR_CLIENT, FLOOR_SERVER, GATEWAY, LEAN_CLIENT, PEERS
from bench.payload import BATCH, TASK_BYTES
from bench.results import Check, Results, Seen, checks, ratio

Column = tuple[str, str, str]  # heading, figure, format

_ENQUEUE: tuple[Column, ...] = (
    ("tasks /s", "enqueue_rate", "{:,.0f}"),
    ("server CPU s", "enqueue_cpu", "{:.3f}"),
    ("Redis CPU s", "enqueue_redis_cpu", "{:.3f}"),
    ("p50 ms", "enqueue_p50", "{:.2f}"),
    ("p99 ms", "enqueue_p99", "{:.2f}"),
    ("1 conn. p50 ms", "alone_p50", "{:.3f}"),
    ("1 conn. p99 ms", "alone_p99", "{:.3f}"),
)
_DISPATCH: tuple[Column, ...] = (
    ("calls /s", "dispatch_rate", "{:,.0f}"),
    ("worker CPU s", "dispatch_cpu", "{:.3f}"),
    ("Redis CPU s", "dispatch_redis_cpu", "{:.3f}"),
)
_REST: tuple[Column, ...] = (
    ("201 → arrival p50 ms", "arrival_p50", "{:.2f}"),
    ("p99 ms", "arrival_p99", "{:.2f}"),
    ("Redis bytes a task", "task_bytes", "{:,.0f}"),
)

_METHOD = f"""\
Everything runs on one machine over loopback: load, server, worker, Valkey and target share its cores, so rates say
how the contestants compare and CPU seconds per 1,000 tasks say what a task costs. Contestants take turns within each
round; each turn has a Valkey of its own, started empty, the same binary with the same settings for all (TCP, nothing
written to disk, glibc's `malloc` tuned as for the gateway's embedded one), and fresh processes. A figure is the median
over the rounds, with the lowest and the highest in brackets. CPU seconds are user and system time of a process and its
children, from `/proc`.

A task is {TASK_BYTES} bytes of JSON (URL, method, a header, a text as body). Peers are what one would write at home:
an aiohttp server on uvloop that checks the client's id, reads its limit (GET), counts its minute (INCR) and enqueues;
a worker that makes the call with aiohttp, 200 at once; on Node, `http`, ioredis and an agent that keeps connections.
They run as shipped and do less than the gateway: no exact window, no concurrency bound by client, no idempotency, no
query of a task's state. The files are in [bench/peers](../bench/peers). Limits are set so high that everything is
admitted, and every answer is a 201.

- **A**: wrk posts the tasks of 100 clients to one server process, over 64 connections and over one; nothing
  dispatches meanwhile. Batches have {BATCH} tasks. Floor: an aiohttp server on uvloop that parses the JSON and
  answers 201.
- **B**: tasks of 100 clients are queued beforehand; then one process starts and calls the target, 200 at once. The
  first 5 % are the warming up; the measurement ends with the last task or after some seconds. The target is an
  asyncio protocol in a process of its own. Floors: a loop around aiohttp's client; llhttp by httptools on an asyncio
  protocol.
- **C**: 200 tasks a second, otherwise idle; from the moment the caller has the 201 to the moment the target has the
  call, by one clock. Below zero: the call was faster than the answer. arq polls every half second as shipped.
- **D**: growth of Valkey's `used_memory` over the tasks that B queues.
- **E**: CPU of gateway and Valkey for taking in a task and dispatching it, with more and more known clients of which
  up to 1,000 are active, and behind a long backlog.
- **F**: the gateway with nothing to do.
- **G**: the same as E with one and with two worker processes.
"""


def number(seen: Seen | None, form: str) -> str:
    """A figure with its spread.

    >>> number(Seen(2.0, 1.5, 2.5), "{:.1f}")
    '2.0 [1.5–2.5]'
    """
    if seen is None:
        return "–"
    text = form.format(seen.median)
    if seen.low == seen.high:
        return text
    return f"{text} [{form.format(seen.low)}–{form.format(seen.high)}]"


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _compared(results: Results, names: list[str], columns: tuple[Column, ...], floor: str | None) -> str:
    first = columns[0][1]
    rows = []
    for name in names:
        if not any(results.seen(name, figure) for _, figure, _ in columns):
            continue
        row = [f"**{name}**" if name == GATEWAY else name]
        row += [number(results.seen(name, figure), form) for _, figure, form in columns]
        if floor is not None:
            of_floor = ratio(results.median(name, first), results.median(floor, first))
            row.insert(2, "–" if of_floor is None else f"{of_floor:.2f}")
        rows.append(row)
    headings = ["", *(heading for heading, _, _ in columns)]
    if floor is not None:
        headings.insert(2, "of the floor")
    return table(headings, rows) if rows else "Not measured in this run.\n"


def verdicts(results: Results) -> str:
    """What must hold, line by line."""
    return table(["", "what", "measured", "wanted", ""], [_verdict(check) for check in checks(results)])


def _verdict(check: Check) -> list[str]:
    def shown(value: float | None) -> str:
        return "not measured" if value is None else check.form.format(value)

    bound = f"{'at least' if check.at_least else 'at most'} {shown(check.bound)}"
    return [
        check.scenario,
        check.what,
        shown(check.value),
        bound,
        {True: "pass", False: "**miss**", None: "–"}[check.holds],
    ]


def _own(results: Results) -> str:
    """The scenarios of the gateway alone: its figures by name."""
    rows = []
    for name in results.figures.get(GATEWAY, {}):
        for scenario, pattern, what, form in _OWN_FIGURES:
            if name.startswith(pattern):
                rest = name.removeprefix(pattern).removesuffix("_cpu").replace("_", " ")
                label = what.format(f"{int(rest):,}" if rest.isdigit() else rest)
                rows.append([scenario, label, number(results.seen(GATEWAY, name), form)])
                break
    return table(["", "what", "measured"], rows) if rows else "Not measured in this run.\n"


_OWN_FIGURES = (
    ("A", "batch_rate", f"tasks a second in batches of {BATCH}", "{:,.0f}"),
    ("A", "batch_cpu", "batches: server CPU s per 1,000 tasks", "{:.4f}"),
    ("A", "batch_redis_cpu", "batches: Redis CPU s per 1,000 tasks", "{:.4f}"),
    ("E", "known_", "{} known clients: CPU s per 1,000, Redis included", "{:.3f}"),
    ("E", "backlog_cpu", "long backlog: CPU s per 1,000, Redis included", "{:.3f}"),
    ("F", "idle_cpu", "idle: share of a core", "{:.4f}"),
    ("F", "idle_redis_cpu", "idle: Valkey's share of a core", "{:.4f}"),
    ("F", "idle_mb", "idle: resident MB", "{:.0f}"),
    ("G", "workers_1_cpu", "one worker: CPU s per 1,000, Redis included", "{:.3f}"),
    ("G", "workers_2_cpu", "two workers: CPU s per 1,000, Redis included", "{:.3f}"),
    ("G", "workers_1_", "one worker: {} /s", "{:,.0f}"),
    ("G", "workers_2_", "two workers: {} /s", "{:,.0f}"),
)


def document(results: Results, chart: str) -> str:
    """The whole report; ``chart`` is the file name of the picture beside it."""
    peers = [peer.name for peer in PEERS]
    machine = table(["", ""], [[name, text] for name, text in results.machine.items()])
    kind = "a quick look, not for conclusions" if results.quick else f"{results.rounds} rounds"
    problems = "".join(f"- {problem}\n" for problem in results.problems) or "Nothing failed or was left out.\n"
    return f"""# Performance

Written by `make bench ARGS="--publish"`: one run, {kind}, {results.date}. Costs are CPU seconds per 1,000 tasks.

![Rates and costs of the contestants]({chart})

## What must hold

{verdicts(results)}
## A: taking tasks in, one process, 64 connections

{_compared(results, [FLOOR_SERVER, GATEWAY, *peers], _ENQUEUE, FLOOR_SERVER)}
## B: making the calls, one process, 200 at once

{_compared(results, [FLOOR_CLIENT, LEAN_CLIENT, GATEWAY, *peers], _DISPATCH, FLOOR_CLIENT)}
## C and D: from 201 to arrival, memory

{_compared(results, [GATEWAY, *peers], _REST, None)}
## The gateway by itself

{_own(results)}
## How it is measured

{_METHOD}
## Machine and versions

{machine}
## What went wrong in this run

{problems}"""


def chart_of(results: Results) -> str:
    """The picture: rates and costs of A and B."""

    def rows(names: list[str], *figures: str) -> list[Row]:
        found = []
        for name in names:
            values = [seen.median for figure in figures if (seen := results.seen(name, figure))]
            if values:
                found.append(Row(name, values, name == GATEWAY))
        return found

    peers = [peer.name for peer in PEERS]
    takers, callers = [FLOOR_SERVER, GATEWAY, *peers], [LEAN_CLIENT, FLOOR_CLIENT, GATEWAY, *peers]
    return drawn(
        [
            Panel("A: tasks taken in, a second", rows(takers, "enqueue_rate"), "{:,.0f}"),
            Panel("A: CPU s per 1,000 (lighter: Redis)", rows(takers, "enqueue_cpu", "enqueue_redis_cpu"), "{:.3f}"),
            Panel("B: calls made, a second", rows(callers, "dispatch_rate"), "{:,.0f}"),
            Panel("B: CPU s per 1,000 (lighter: Redis)", rows(callers, "dispatch_cpu", "dispatch_redis_cpu"), "{:.3f}"),
        ]
    )


def write(results: Results, markdown: Path, chart: Path) -> None:
    """The report and its chart into files."""
    markdown.write_text(document(results, chart.name))
    chart.write_text(chart_of(results))


def summary(results: Results) -> str:
    """What the terminal shows: everything but the method."""
    return document(results, "bench.svg").partition("## How it is measured")[0].rstrip()
