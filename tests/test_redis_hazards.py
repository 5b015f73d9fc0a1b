"""What Redis does to those who use it carelessly: each test keeps one of those ways shut."""

import asyncio
import os
import re
import signal
from functools import partial
from importlib import resources
from pathlib import Path

import pytest
import redis.asyncio as redis
from conftest import DEADLINE, until
from deployments import standalone
from proxy import proxy_to
from stores import Key, Opened, admit, limit
from structlog.testing import capture_logs

from gateway.settings import Settings
from gateway.store import claims, data_folder, doorbell, embedded
from gateway.store.connection import arguments, connect
from gateway.store.doorbell import Doorbell
from gateway.store.scripts import script

FILES = [file.name for file in resources.files("gateway.store").iterdir()]
SCRIPTS = sorted(name.removesuffix(".lua") for name in FILES if name.endswith(".lua"))
DRAINING = (
    "claim",
    "renew",
    "finish",
    "reclaim",
    "recover",
    "hand_back",
    "promote",
    "cancel",
    "pause",
    "delete_client",
)


def calls(name: str) -> list[list[str]]:
    """The commands of a script, each with what it is given, as it stands in the source."""
    code = re.sub(r"--[^\n]*", "", script(name).source)
    return [given(code, call.end()) for call in re.finditer(r"redis\.p?call\(", code)]


def given(code: str, start: int) -> list[str]:
    """The arguments of the call whose parenthesis opens just before, those of calls within it left whole."""
    found, depth = [""], 0
    for sign in code[start:]:
        depth += (sign in "({[") - (sign in ")}]")
        if depth < 0:
            break
        if sign == "," and depth == 0:
            found.append("")
        else:
            found[-1] += sign
    return [each.strip() for each in found]


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_trims_work_blocks_or_looks_without_a_bound(name: str) -> None:
    """MAXLEN and XTRIM destroy what is pending, XAUTOCLAIM and blocking reads start or hold what they should not, and
    XPENDING's summary, or its IDLE, looks at everything there is."""
    for command, *rest in calls(name):
        assert command not in {"'XTRIM'", "'XAUTOCLAIM'", "'WAIT'", "'WAITAOF'", "'KEYS'", "'BLPOP'", "'BZPOPMIN'"}
        assert not {"'MAXLEN'", "'MINID'", "'BLOCK'", "'IDLE'"} & set(rest), (command, rest)
        if command == "'XPENDING'":
            assert len(rest) >= 5, rest  # key and group, from, to, how many
        if command == "'XREADGROUP'":
            assert "'COUNT'" in rest, rest


def test_what_drains_runs_on_a_full_redis_and_what_adds_does_not() -> None:
    """Only with allow-oom a script is run at all where memory is full, its XACK and XDEL included."""
    assert set(DRAINING) <= set(SCRIPTS)
    flagged = {name for name in SCRIPTS if "allow-oom" in script(name).source.partition("\n")[0]}
    assert set(DRAINING) <= flagged
    assert flagged.isdisjoint({"admit", "admit_and_claim", "replay", "set_client"})


@standalone
async def test_a_clock_that_jumps_has_few_claims_taken_at_a_time(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All leases seem to have ended at once: one look takes no more of a client than a script call may, and the rest
    stay claimed until the next."""
    monkeypatch.setattr(claims, "_PER_CLIENT", 5)
    store = await opened(LEASE_SECONDS="0.5")
    await limit(store, "acme", 12)
    for _ in range(12):
        await admit(store)
    assert len((await store.claims.claim("acme", 12)).tasks) == 12
    taken: list[int] = []

    async def all_back() -> bool:
        if count := await store.claims.reclaim_lapsed(100):
            taken.append(count)
            left = (await store.windows.usage("acme")).in_flight
            assert left == 12 - sum(taken)
        return sum(taken) == 12

    await until(all_back)
    assert taken == [5, 5, 2]


@standalone
async def test_a_stream_with_a_claim_outlives_its_client(opened: Opened, raw: redis.Redis, key: Key) -> None:
    """A stream that is deleted takes its pending list along, and with it the count of calls in flight."""
    store = await opened()
    await limit(store, "acme", 1)
    await admit(store)
    assert len((await store.claims.claim("acme", 5)).tasks) == 1
    await admit(store)
    assert await store.clients.delete("acme", cancel_tasks=True) == 1
    async for _, found in store.audit.everything(mend=True):
        assert found == []
    assert await raw.exists(key("stream:acme:default")) == 1
    assert (await store.windows.usage("acme")).in_flight == 1


async def test_a_subscription_that_hears_nothing_asks_and_is_made_anew(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is cut says nothing: no read waits longer than two quiet spells, and with none lost nothing ends."""
    monkeypatch.setattr(doorbell, "_QUIET_SECONDS", 0.2)
    async with proxy_to(store_url.removeprefix("unix://")) as line:

        async def homes(channels: object) -> list[tuple[object, list[str]]]:
            return [(partial(connect, arguments(Settings.load({}), line.url)), ["bell"])]

        bell = Doorbell(homes, ["bell"], sharded=False, on_change=lambda _: None)  # type: ignore[arg-type]
        running = asyncio.create_task(bell.run())
        async with asyncio.timeout(DEADLINE):
            await bell.subscribed.wait()
        await until(lambda: line.sent.count(b"PING") >= 3)  # the server answers each of them
        assert line.connections == 1
        line.answering.clear()
        await until(lambda: line.connections == 2)
        line.answering.set()
        async with asyncio.timeout(DEADLINE):
            await bell.subscribed.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_server_that_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on a full disk may refuse SIGTERM: after the deadline it is gone, and the log says so."""
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.3)
    with capture_logs() as logs:
        async with embedded.EmbeddedValkey(tmp_path / "data") as server:
            pid = server.pid
            os.kill(pid, signal.SIGSTOP)  # it takes no SIGTERM until it is continued
    assert not data_folder.alive(pid)
    assert "embedded_redis_killed" in [entry["event"] for entry in logs]
