"""What a user of Redis must be allowed, and what is said where something is not."""

import re
from pathlib import Path

import pytest
from redis_servers import Server
from round_trip import QUOTED, SECRET, round_trip, store_on
from stores import spec

import gateway.store
from gateway.errors import StoreUnavailable


def minimal_acl() -> list[str]:
    """The rules of docs/troubleshooting.md."""
    text = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("user gateway ")]
    return line.removeprefix("user gateway ").replace("CHANGE-ME", SECRET).split()


async def test_the_documented_acl_is_enough_for_everything_the_gateway_does(redis_server: Server) -> None:
    """A whole round trip, subscription and greeting included, as the user of docs/troubleshooting.md: none denied."""
    with redis_server.client() as operator:
        operator.flushall()
        known = "valkey_version" in operator.info("server")
        rules = [rule for rule in minimal_acl() if known or rule != "+waitaof"]
        operator.execute_command("ACL", "SETUSER", "gateway", "reset", *rules)
        operator.execute_command("ACL", "LOG", "RESET")
        async with store_on(REDIS_URL=f"redis://gateway:{QUOTED}@127.0.0.1:{redis_server.port}") as store:
            await round_trip(store)
        assert operator.execute_command("ACL", "LOG") == []
        operator.execute_command("ACL", "DELUSER", "gateway")


def test_the_documented_acl_names_what_the_scripts_call() -> None:
    """Every command of every script is in it, ways that a round trip seldom takes included, and no other but these."""
    scripts = Path(gateway.store.__file__).parent
    called = {
        name.lower()
        for path in scripts.rglob("*.lua")
        for name in re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text())
    }
    outside = {
        "evalsha",
        "eval",
        "mget",
        "scan",
        "zrevrank",
        "xrevrange",
        "ping",
        "info",
        "config",
        "client",
        "subscribe",
        "publish",
    }
    several = {"ssubscribe", "spublish", "asking", "cluster", "role", "wait", "waitaof"}
    allowed = {rule[1:].partition("|")[0] for rule in minimal_acl() if rule.startswith("+")}
    assert allowed == called | outside | several


async def test_a_user_without_permissions_is_told_and_redis_names_the_command_in_the_log(
    redis_server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """NOPERM is a clear 503, and the log says which command was denied."""
    with redis_server.client() as operator:
        operator.execute_command("ACL", "SETUSER", "gateway", "reset", "on", f">{SECRET}", "~*", "&*", "+client")
        async with store_on(REDIS_URL=f"redis://gateway:{QUOTED}@127.0.0.1:{redis_server.port}") as store:
            with pytest.raises(StoreUnavailable, match="lacks a permission"):
                await store.tasks.admit("acme", spec(), create=True)
        operator.execute_command("ACL", "DELUSER", "gateway")
    logged = "".join(capfd.readouterr())
    assert "hgetall" in logged
    assert SECRET not in logged
