"""The command line as a user runs it, in a process of its own: against an imitation of the operators' API,
and `gateway check` against a real Valkey."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from commands import run

TIERS = ("free", "premium", "default")
KEY = "operator-key"


class Imitation:
    """The operators' API as far as the commands need it; ``calls`` are what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], Any]] = []
        self.clients: dict[str, dict[str, Any]] = {}
        self.env: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """Every call of `/admin`."""
        body: Any = await request.json() if request.can_read_body else None
        self.calls.append((request.method, request.path, dict(request.query), body))
        if request.headers.get("X-Admin-Key") != KEY:
            return web.json_response({"error": "Unauthorized", "message": "X-Admin-Key is wrong"}, status=401)
        if request.path == "/admin/clients/set":
            return self._set(body)
        name = request.query.get("client_id", "")
        if request.path == "/admin/clients/delete":
            self.clients.pop(name, None)
            return web.Response(status=204)
        if request.path == "/admin/clients":
            found = [client for _, client in sorted(self.clients.items())]
            page = found[: int(request.query.get("limit", len(found)))]
            more = {"next_cursor": "abc"} if len(page) < len(found) else {}
            return web.json_response({"clients": page, "count": len(found), **more})
        if name not in self.clients:
            return web.json_response({"error": "Client not found", "message": f"no client {name}"}, status=404)
        return web.json_response(self.clients[name])

    def _set(self, body: dict[str, Any]) -> web.Response:
        tier = body.get("tier", "default")
        if tier not in TIERS:
            message = f"$.tier: no tier {tier!r}; the tiers are {', '.join(TIERS)}"
            return web.json_response({"error": "Invalid body", "message": message}, status=400)
        self.clients[body["client_id"]] = client = {
            "client_id": body["client_id"],
            "tier": tier,
            "rate_limit": body.get("rate_limit") or {"max_concurrent": 3, "requests_per_min": 50},
            "allowed_queues": body.get("allowed_queues"),
            "enabled": body.get("enabled", True),
            "created_at": "2024-01-15T10:30:00Z",
            "updated_at": "2024-01-15T10:30:00Z",
            "source": "client" if body.get("rate_limit") else "tier",
        }
        return web.json_response(client)


@pytest.fixture
async def admin() -> AsyncIterator[Imitation]:
    """The imitation on a port of its own; ``env`` is what points the commands to it."""
    imitation = Imitation()
    app = web.Application()
    app.router.add_route("*", "/admin/{rest:.*}", imitation.answer)
    async with TestServer(app) as server:
        imitation.env = {"GATEWAY_URL": str(server.make_url("/")), "ADMIN_API_KEY": KEY}
        yield imitation


async def test_set_get_delete(admin: Imitation) -> None:
    """set sends exactly what was typed, get shows it as a table, delete removes it and says so."""
    typed = ("--tier", "premium", "--max-concurrent", "7", "--requests-per-min", "70", "--queues", "a,b")
    ran = await run("clients", "set", "one-client", *typed, "--disabled", env=admin.env)
    assert ran.code == 0, ran.err
    assert admin.calls[-1] == (
        "PUT",
        "/admin/clients/set",
        {},
        {
            "client_id": "one-client",
            "tier": "premium",
            "rate_limit": {"max_concurrent": 7, "requests_per_min": 70},
            "enabled": False,
            "allowed_queues": ["a", "b"],
        },
    )
    ran = await run("clients", "get", "one-client", env=admin.env)
    assert ran.code == 0
    row = ran.out.splitlines()[-1].split()
    assert row == ["one-client", "premium", "7", "70", "client", "a,", "b", "all", "no", "2024-01-15T10:30:00Z"]
    ran = await run("clients", "delete", "one-client", env=admin.env)
    assert (ran.code, ran.out) == (0, "deleted one-client\n")
    assert not admin.clients


async def test_set_back_to_the_tier(admin: Imitation) -> None:
    """--tier-limits sends a null rate limit, an empty --queues sends null, what is not typed is not sent."""
    await run("clients", "set", "one-client", "--tier-limits", "--queues", "", env=admin.env)
    assert admin.calls[-1][3] == {"client_id": "one-client", "rate_limit": None, "allowed_queues": None}
    await run("clients", "set", "one-client", "--enabled", env=admin.env)
    assert admin.calls[-1][3] == {"client_id": "one-client", "enabled": True}


async def test_json_is_what_the_api_answered(admin: Imitation) -> None:
    """--json prints the answer as it came, of a success and of a refusal."""
    ran = await run("clients", "set", "one-client", "--json", env=admin.env)
    assert ran.out == json.dumps(admin.clients["one-client"]) + "\n"
    ran = await run("clients", "get", "nobody", "--json", env=admin.env)
    assert ran.code == 1
    assert ran.out == json.dumps({"error": "Client not found", "message": "no client nobody"}) + "\n"
    assert ran.err == "gateway: Client not found: no client nobody\n"


async def test_list_filters(admin: Imitation) -> None:
    """list passes its filters on, shows the clients, and says how to get the rest."""
    for name in ("b-client", "a-client"):
        admin._set({"client_id": name})
    ran = await run("clients", "list", "--tier", "free", "--disabled", "--limit", "1", env=admin.env)
    assert admin.calls[-1][2] == {"tier": "free", "enabled": "false", "limit": "1"}
    assert "a-client" in ran.out
    assert "b-client" not in ran.out
    assert ran.err == "1 of 2 clients\nmore: --cursor abc\n"
    ran = await run("clients", "list", env=admin.env)
    assert admin.calls[-1][2] == {}
    assert len(ran.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("clients", "set", "x-client", "--max-concurrent", "1"), "--requests-per-min"),
        (
            (
                "clients",
                "set",
                "x-client",
                "--tier-limits",
                "--max-concurrent",
                "1",
                "--requests-per-min",
                "1",
            ),
            "leave out",
        ),
        (("clients", "import", "/nowhere"), "/nowhere can't be read"),
        (("clients", "lst"), "Did you mean 'list'"),
        (("serve", "--max-inflight", "3"), "--max-in-flight"),
        (("serve", "--max-in-flight", "0", "--port", "x"), "PORT (--port): 'x' is not allowed"),
        (("serve", "--redis-url", "http://:hunter@x"), "REDIS_URL (--redis-url): 'http://***@x'"),
    ],
)
async def test_usage_errors(arguments: tuple[str, ...], told: str) -> None:
    """A mistyped command line ends with 2 and is told what to type, before anything is called."""
    ran = await run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "hunter" not in ran.err


async def test_failed_calls(admin: Imitation) -> None:
    """A call that is refused ends with 1, one that nobody answers with 3; both name what to change: the URL, the
    key, or what the API says."""
    ran = await run("clients", "set", "x-client", "--tier", "gold", env=admin.env)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "gateway: Invalid body: $.tier: no tier 'gold'; the tiers are free, premium, default\n"
    ran = await run("clients", "list", env=admin.env | {"ADMIN_API_KEY": "wrong-key"})
    assert ran.code == 1
    assert "set ADMIN_API_KEY" in ran.err
    assert "wrong-key" not in ran.err
    ran = await run("clients", "list", env=admin.env | {"GATEWAY_URL": "http://127.0.0.1:1"})
    assert ran.code == 3
    assert "set GATEWAY_URL" in ran.err
    ran = await run("clients", "list", env=admin.env | {"GATEWAY_URL": admin.env["GATEWAY_URL"] + "elsewhere"})
    assert ran.code == 3
    assert "set GATEWAY_URL" in ran.err
    ran = await run("clients", "list", env=admin.env | {"GATEWAY_URL": "127.0.0.1:8080"})
    assert ran.code == 2
    assert ran.err.startswith("gateway: GATEWAY_URL: '127.0.0.1:8080' is not allowed")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("# clients\nfirst:free\n\nsecond:gold\nthird:premium\n", "line 4"),
        (
            "\ufeffclient_id,tier\nfirst,free\nsecond,gold\nthird,premium\n",
            "line 3",
        ),
        ("client_id,tier,enabled\nfirst,free,yes\nsecond,free,perhaps\nthird,premium,no\n", "line 3"),
        ("client_id,max_concurrent,requests_per_min\nfirst,,\nsecond,5,\nthird,5,5\n", "line 3"),
        (
            '[{"client_id": "first"}, {"client_id": "second", "tier": "gold"}, {"client_id": "third"}]',
            "entry 2",
        ),
        ('{"clients": [{"client_id": "first"}, 3, {"client_id": "third"}], "count": 3}', "entry 2"),
    ],
)
async def test_import(admin: Imitation, content: str, place: str) -> None:
    """Each form is read, the entry that fails is named by its place, the others are set; it ends with 1."""
    ran = await run("clients", "import", "-", env=admin.env, stdin=content.encode())
    assert set(admin.clients) == {"first", "third"}
    assert ran.code == 1
    assert ran.out == "2 imported, 1 failed\n"
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == [place]


async def test_import_of_a_file(admin: Imitation, tmp_path: Path) -> None:
    """A file without mistakes ends with 0; a CSV's cells become fields, an empty one none."""
    file = tmp_path / "clients.csv"
    file.write_text(
        "client_id, tier, enabled, allowed_queues, max_concurrent, requests_per_min\n"
        'first, free, false, "a;b", 2, 20\n'
        "second,,,,,\n"
    )
    ran = await run("clients", "import", str(file), "--json", env=admin.env)
    assert (ran.code, json.loads(ran.out)) == (0, {"imported": 2, "failed": []})
    assert [call[3] for call in admin.calls] == [
        {
            "client_id": "first",
            "tier": "free",
            "rate_limit": {"max_concurrent": 2, "requests_per_min": 20},
            "enabled": False,
            "allowed_queues": ["a", "b"],
        },
        {"client_id": "second"},
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[{]", "not JSON"),
        (b'{"client_id": "x"}', "list of clients"),
        (b"client_id,teir\nx,free\n", "'teir'"),
        (b"first,free\n", "header"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
async def test_import_of_something_else(admin: Imitation, content: bytes, told: str) -> None:
    """What is no list of clients is refused as a whole, before anything is sent."""
    ran = await run("clients", "import", "-", env=admin.env, stdin=content)
    assert (ran.code, admin.calls) == (2, [])
    assert told in ran.err


async def test_import_stops_where_no_line_can_work(admin: Imitation) -> None:
    """A refused key ends the import at its first line instead of failing every one."""
    env = admin.env | {"ADMIN_API_KEY": "wrong-key"}
    ran = await run("clients", "import", "-", env=env, stdin=b"first:free\nsecond:free\n")
    assert (ran.code, len(admin.calls)) == (1, 1)
    assert "stopped at line 1" in ran.err
    assert "ADMIN_API_KEY" in ran.err
