"""The bench: its parsing, its figures and its report. What it measures is for `make bench`; no speed is tested here."""

import ast
import asyncio
import doctest
import importlib
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from as_user import ROOT

from bench import costs, counted, payload, report, without
from bench.__main__ import chosen
from bench.contestants import FLOOR_CLIENT, FLOOR_SERVER, GATEWAY
from bench.crowd import QUICK, Crowd
from bench.load import bodies_file, parse_wrk, spread
from bench.operators import Line, table
from bench.processes import BenchError, started
from bench.results import Check, Results, checks
from bench.scenarios import delays
from bench.target import Answering, Counts
from bench.valkey import client_id, encode, read_reply, valkey
from gateway.api.decoding import Decoding
from gateway.api.task_rules import Rules
from gateway.middleware.contracts import Given
from gateway.settings import Settings
from gateway.store.embedded import ALLOCATOR


def results(**figures: dict[str, list[float]]) -> Results:
    """A run that found these figures of the gateway and the floors."""
    made = Results(machine={"processor": "one"}, date="2026-01-01", rounds=3, quick=False)
    made.figures = {name.replace("_", " "): values for name, values in figures.items()}
    return made


def check(found: Results, what: str) -> Check:
    """The one line of what must hold that begins so."""
    [line] = [line for line in checks(found) if line.what.startswith(what)]
    return line


@pytest.mark.parametrize(
    "name", ["payload", "valkey", "scenarios", "report", "costs", "counted", "without", "__main__"]
)
def test_examples_in_docstrings_hold(name: str) -> None:
    """The examples in the bench's docstrings are true."""
    assert doctest.testmod(importlib.import_module(f"bench.{name}")).failed == 0


def test_the_command_line_explains_itself() -> None:
    """`python -m bench --help` works and names what the documentation names."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for flag in ("--quick", "--rounds", "--only", "--publish"):
        assert flag in done.stdout


@pytest.mark.parametrize("crowd", [Crowd(), QUICK])
def test_a_crowd_has_what_it_says(crowd: Crowd) -> None:
    """The queued tasks are as many as were asked for, of clients that there are, none of them disabled."""
    batches = list(crowd.batches("http://target"))
    assert sum(count for _, _, count in batches) == crowd.tasks
    numbers = {int(name.rpartition("-")[2]) for name, _, _ in batches}
    assert max(numbers) < crowd.clients
    assert not any(number % 50 == 49 for number in numbers)


def test_the_table_of_operators_calls_has_a_line_each() -> None:
    """Name and figures of each line, under a head of as many columns."""
    head, _, line = table([Line("tasks", 1, 2, 3, 4, 5.06)]).splitlines()
    assert line == "| tasks | 1.0 | 2.0 | 3.0 | 4.0 | 5.1 |"
    assert head.count("|") == line.count("|")


@pytest.mark.parametrize("change", [*without.unguarded(), *without.undisturbed()])
def test_what_is_taken_away_is_there(change: without.Change) -> None:
    """Each attribute that is replaced exists, so that nothing is left in what is measured without it."""
    owner, name, _ = change
    assert hasattr(owner, name)


@pytest.mark.parametrize("part", [without.NOTHING, *costs.PARTS])
def test_the_gateway_runs_without_the_part(part: str) -> None:
    """What is left of it is a program still."""
    argv = [sys.executable, "-m", "bench.without", part, "version"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("gateway "), done.stderr


def test_modules_without_recording_call_no_metrics() -> None:
    """No call of the metrics is left in what a task passes, nor a clock that is read for them; all else is."""
    gone = set()
    for file in sorted((ROOT / "gateway").rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        before = ast.unparse(ast.parse(file.read_text()))
        after = ast.unparse(without.unrecorded(file.read_bytes(), name, told=True))
        if before != after:
            gone.add(name)
        assert before.count("\n") - after.count("\n") <= before.count("metrics.")
        if not name.startswith("gateway.metrics"):
            assert "_timed[status](" not in after
            assert not re.search(r"^ *metrics\.\w+\(", after, re.MULTILINE)
    assert gone >= {
        *("gateway.api.express", "gateway.api.enqueue", "gateway.dispatch.attempts"),
        *("gateway.store.scripts", "gateway.store.claims"),
    }
    express = (ROOT / "gateway/api/express.py").read_bytes()
    assert "monotonic" not in ast.unparse(without.unrecorded(express, "gateway.api.express", told=False))
    assert "chosen_id(" in ast.unparse(without.unrecorded(express, "gateway.api.express", told=False))
    assert "chosen_id(" not in ast.unparse(without.unrecorded(express, "gateway.api.express", told=True))


def test_nothing_is_counted_where_valgrind_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is missing, instead of failing, and what its end says is read."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert "valgrind and callgrind_control" in (counted.missing() or "")
    with pytest.raises(BenchError, match="told no count"):
        counted.parse_log("valgrind: failed to start")


def test_only_names_scenarios_and_contestants() -> None:
    """`--only` takes letters and names in any case, and refuses what is neither."""
    assert chosen("A, bullmq") == ({"A"}, {"BullMQ"})
    letters, names = chosen(None)
    assert letters == set("ABCDEFG")
    assert GATEWAY in names
    with pytest.raises(BenchError, match="celery is neither a scenario"):
        chosen("celery")


def test_the_gateway_accepts_the_payload() -> None:
    """What the bench enqueues is a valid body, alone and in a batch, and each task has the stated size."""
    decoding = Decoding(Rules(Settings.load({})))
    task = payload.task("http://127.0.0.1:9000", 3)
    assert len(payload.compact(task)) == payload.TASK_BYTES
    given = Given(None, 0.0)
    assert decoding.enqueue(payload.single("bench-1", task).encode(), given).problem is None
    batch = decoding.batch(payload.batch("bench-1", task).encode(), given)
    assert batch.problem is None
    assert len(batch.asks) == payload.BATCH


def test_wrk_output_is_read() -> None:
    """The line that enqueue.lua adds becomes a load; failed requests, or no line at all, are an error."""
    line = '{"requests": 300, "seconds": 2.0, "failed": 0, "p50": 1.5, "p99": 4.0}'
    load = parse_wrk(f"Running 2s test\n  1 threads\n\n{line}\n")
    assert (load.rate, load.p50, load.p99) == (150, 1.5, 4.0)
    with pytest.raises(BenchError, match="3 failed"):
        parse_wrk(line.replace('"failed": 0', '"failed": 3'))
    with pytest.raises(BenchError, match="unable to connect"):
        parse_wrk("unable to connect")


def test_bodies_are_one_a_line() -> None:
    """enqueue.lua reads a body a line, so none may hold a line break."""
    with bodies_file(payload.single(client, payload.task("http://127.0.0.1:9000")) for client in spread(10, 5)) as file:
        bodies = [json.loads(line) for line in file.read_text().splitlines()]
    assert [body["client_id"] for body in bodies] == [client_id(n) for n in (0, 2, 4, 6, 8)]


def test_replies_of_valkey_are_read() -> None:
    """Each kind of RESP reply becomes its value, an error an exception."""
    stream = io.BytesIO(b"+OK\r\n:7\r\n$-1\r\n$4\r\na\r\nb\r\n*2\r\n:1\r\n$1\r\nx\r\n-ERR no\r\n")
    assert [read_reply(stream) for _ in range(5)] == [b"OK", 7, None, b"a\r\nb", [1, b"x"]]
    with pytest.raises(BenchError, match="ERR no"):
        read_reply(stream)
    assert encode(("GET", "a", 1)) == b"*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\n1\r\n"


def test_valkey_of_a_contestant_knows_the_clients() -> None:
    """A contestant's Valkey starts with the settings of its clients and the embedded one's allocator, and ends with the
    context."""
    with valkey(3) as server:
        stored = json.loads(server.call("GET", f"client_config:{client_id(2)}"))
        assert stored["client_id"] == client_id(2)
        assert server.call("ZCARD", "clients") == 3
        assert server.used_memory() > 0
        process = server.process
        assert process.rss() > 0
        environment = Path(f"/proc/{process.popen.pid}/environ").read_text()
        assert {f"{name}={value}" for name, value in ALLOCATOR.items()} <= set(environment.split("\0"))
    assert process.popen.poll() is not None


def test_a_process_that_fails_is_told_with_its_output() -> None:
    """What a contestant printed before it ended is in the error."""
    with started("it", [sys.executable, "-c", "raise SystemExit('no such thing')"]) as process:
        process.popen.wait(20)
        with pytest.raises(BenchError, match="it ended with code 1: no such thing"):
            process.check()


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


def test_the_target_counts_whole_requests() -> None:
    """However a request is cut into pieces, it is answered and counted once, with its number."""
    counts = Counts()
    connection, transport = Answering(counts), _Transport()
    connection.connection_made(transport)
    request = b"POST /hook?n=5 HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\r\nabc"
    for at in range(len(request)):
        connection.data_received(request[at : at + 1])
    connection.data_received(request.replace(b"n=5", b"n=6") * 2)
    assert counts.count == 3
    assert set(counts.arrivals) == {5, 6}
    assert transport.written.count(b"204") == 3
    connection.data_received(b"GET /-/stats HTTP/1.1\r\nHost: x\r\n\r\n")
    assert json.loads(transport.written.rpartition(b"\r\n")[2])["count"] == 3


def test_delays_are_from_answer_to_arrival() -> None:
    """A call may be faster than its answer; then the delay is below zero."""
    figures = delays([10_000_000] * 3, {0: 9_000_000, 1: 12_000_000, 2: 13_000_000})
    assert figures["arrival_p50"] == 2.0


def test_medians_and_spread() -> None:
    """A figure is its median with the extremes; what was not measured is None."""
    found = results(gateway={"enqueue_rate": [1.0, 9.0, 2.0], "enqueue_cpu": [1.0]})
    seen = found.seen(GATEWAY, "enqueue_rate")
    assert seen is not None
    assert tuple(seen) == (2.0, 1.0, 9.0)
    assert found.median(GATEWAY, "enqueue_rate", "enqueue_cpu") == 3.0
    assert found.median(GATEWAY, "enqueue_rate", "missing") is None


def test_checks_pass_miss_or_are_open() -> None:
    """Each line compares with its bound in its direction; without a figure it is neither pass nor miss."""
    found = results(
        gateway={"enqueue_rate": [700.0], "task_bytes": [451.0], "known_100_cpu": [1.0], "known_10000_cpu": [1.2]},
        aiohttp_server={"enqueue_rate": [1000.0]},
        SAQ={"task_bytes": [500.0]},
    )
    assert FLOOR_SERVER in found.figures
    assert check(found, "rate, of bare aiohttp").holds is True
    assert [line.holds for line in checks(found) if line.scenario == "D"] == [False, True]
    assert check(found, "cost at the most clients").holds is False
    assert check(found, "rate, times the plain aiohttp client").holds is None


def test_the_report_says_what_was_measured_and_what_went_wrong() -> None:
    """The document has the figures with their spread, the verdicts, and every problem of the run."""
    found = results(
        gateway={"dispatch_rate": [2000.0, 3000.0, 2500.0], "idle_mb": [80.0], "known_100000_cpu": [0.5]},
        aiohttp_client={"dispatch_rate": [1000.0]},
    )
    assert FLOOR_CLIENT in found.figures
    found.problems.append("BullMQ was left out: no node")
    text = report.document(found, "performance.svg")
    assert "| **gateway** | 2,500 [2,000–3,000] | 2.50 |" in text
    assert "| B | rate, times the plain aiohttp client | 2.50 | at least 1.50 | pass |" in text
    assert "| F | idle: resident MB | 80 | at most 150 | pass |" in text
    assert "100,000 known clients" in text
    assert "BullMQ was left out: no node" in text
    assert Results.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_chart_is_well_formed() -> None:
    """The picture is XML, with a bar for every part of every row and the names escaped."""
    found = results(gateway={"enqueue_rate": [5.0], "enqueue_cpu": [0.1], "enqueue_redis_cpu": [0.2]})
    drawn = ET.fromstring(report.chart_of(found))
    bars = [item for item in drawn.iter() if item.tag.endswith("rect")]
    assert len(bars) == 1 + 1 + 2  # the background, the rate, the two parts of the cost


def test_floors_and_peers_run_on_the_gateways_versions() -> None:
    """The floors and the peers use the same aiohttp and uvloop, else the ratios would compare those."""

    def pins(lock: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))

    peers, own = pins("requirements-bench.lock"), pins("requirements.lock")
    for name in ("aiohttp", "uvloop", "orjson", "hiredis"):
        assert peers[name] == own[name], name
