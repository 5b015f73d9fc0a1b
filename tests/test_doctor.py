"""`gateway doctor` as an operator types it, on a real server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from as_user import free_port, plain_environment

from gateway.cli.doctor import EXPLAINED
from gateway.metrics import INVARIANTS


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "doctor", *arguments],
        env=plain_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def damaged(store_url: str) -> Any:
    """A client whose count of tasks is wrong."""
    client = redis.Redis.from_url(store_url)
    client.zadd("active", {"acme": 0})
    client.hset("counts:acme", "tasks", 7)
    yield store_url
    client.close()


def test_a_healthy_redis_is_said_to_be_healthy(store_url: str) -> None:
    """Nothing differs: one line, exit code 0."""
    ran = doctor(REDIS_URL=store_url)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0 clients, everything agrees\n", "")


def test_what_differs_is_explained_and_mended_where_asked(damaged: str) -> None:
    """Exit code 1 with what to type; --repair mends; then all agrees."""
    ran = doctor(REDIS_URL=damaged)
    assert ran.returncode == 1
    assert "7 tasks are noted, streams and schedule hold 0" in ran.stdout
    assert "gateway doctor --repair" in ran.stdout
    shown = json.loads(doctor("--json", "--repair", REDIS_URL=damaged).stdout)
    assert shown["repaired"]
    assert [(each["client_id"], each["kind"]) for each in shown["violations"]] == [("acme", "depth")]
    assert "everything agrees" in doctor(REDIS_URL=damaged).stdout


def test_a_redis_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """By URL and embedded: exit code 3, what was looked at and what to look at."""
    by_url = doctor(REDIS_URL=f"redis://:hidden@127.0.0.1:{free_port()}")
    assert by_url.returncode == 3
    assert "REDIS_URL" in by_url.stderr
    assert "hidden" not in by_url.stderr
    embedded = doctor(GATEWAY_DATA_DIR=str(tmp_path))
    assert embedded.returncode == 3
    assert str(tmp_path) in embedded.stderr
    assert "Traceback" not in by_url.stderr + embedded.stderr


def test_every_kind_is_explained() -> None:
    """A kind without words would be a KeyError in front of an operator."""

    assert set(EXPLAINED) | {"lanes"} == set(INVARIANTS)
