"""The OpenAPI document: all there is and nothing else, and what the gateway answers is what it says."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from as_user import BIN, Gateway, plain_environment
from conftest import ADMIN_KEY, GatewayFactory

from gateway.admin.clients import SetBody
from gateway.admin.jobs import JobBody
from gateway.admin.tiers import TierBody
from gateway.api.bodies import BatchBody, EnqueueBody
from gateway.openapi.document import document
from gateway.openapi.examples import ANSWERED
from gateway.openapi.operation import REFUSALS
from gateway.openapi.operations import OPERATIONS

PAGES = {
    "/openapi.json",
    "/docs",
    "/admin/ui",
    "/admin/ui/",
    "/admin/ui/events",
    "/admin/ui/session",
    "/admin/ui/{file}",
}


async def test_every_route_is_in_it_and_nothing_else(gateway: GatewayFactory) -> None:
    """The routes of the app and the paths of the document are the same."""
    gw = await gateway(dispatch=False)
    app = gw.app
    routes = {
        (route.method.lower(), route.resource.canonical)
        for router in (app.router, *(sub.router for sub in app._subapps))
        for route in router.routes()
        if route.resource is not None and route.method not in ("HEAD", "*")
    }
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    assert {(method, path) for method, path in routes if path not in PAGES} == described


@pytest.mark.parametrize("shape", [EnqueueBody, BatchBody, SetBody, TierBody, JobBody])
async def test_the_examples_are_taken(gateway: GatewayFactory, shape: type[msgspec.Struct]) -> None:
    """The body that the document shows for a call is accepted as it stands."""
    gw = await gateway(dispatch=False)
    [operation, *_] = [operation for operation in OPERATIONS if operation.body is shape]
    described = document()["paths"][operation.path][operation.method]
    body = described["requestBody"]["content"]["application/json"]["example"]
    status, answer, _ = await gw.admin(operation.method, operation.path.replace("{name}", "gold"), json=body)
    assert status in operation.answers, answer


def names(value: Any) -> Any:
    """Which fields there are, at every level."""
    if isinstance(value, dict):
        return {name: names(inner) for name, inner in value.items()}
    return [names(inner) for inner in value] if isinstance(value, list) else None


@pytest.mark.parametrize("shape", list(ANSWERED))
def test_the_examples_of_answers_have_their_shape(shape: type[msgspec.Struct]) -> None:
    """Each field of the right type, none missing, none that there is not."""
    example = ANSWERED[shape]
    assert names(msgspec.to_builtins(msgspec.convert(example, shape))) == names(example)


def test_every_refusal_is_worded() -> None:
    """Each status that an operation may refuse with has its meaning, and each operation an id of its own."""
    assert {status for operation in OPERATIONS for status in operation.refusals} == set(REFUSALS)
    ids = [each["operationId"] for methods in document()["paths"].values() for each in methods.values()]
    assert len(set(ids)) == len(ids)


async def test_the_reference_page_needs_nobody_else(gateway: GatewayFactory) -> None:
    """No script, no other host, only its own style; every call and every body is on it, every link leads somewhere."""
    gw = await gateway(dispatch=False)
    async with gw.client.get("/docs") as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
    assert {*document()["components"]["schemas"]} <= anchors
    async with gw.client.get("/openapi.json") as answer:
        assert (await answer.json()) == document()
        assert answer.headers["Content-Type"] == "application/json"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Gateway]:
    # Logins of a generated key are guesses, which past ten a minute would close /admin to the rest.
    settings = {"ADMIN_API_KEY": ADMIN_KEY, "ADMIN_GUESSES_PER_MIN": "1000000", "LOG_LEVEL": "warning"}
    with Gateway(tmp_path, **settings) as gateway:
        yield gateway


@pytest.mark.timeout(240)
def test_what_is_answered_is_what_is_described(running: Gateway, tmp_path: Path) -> None:
    """schemathesis: whatever it sends, no 5xx, no status, type, header or body that the document does not have, and
    what violates a schema is refused. (What one field forbids another is in no schema, so valid ones may be refused;
    and a task or a job that DELETE ended is still shown.)
    """
    told = subprocess.run(
        [
            *(str(BIN / "schemathesis"), "run", f"{running.url}/openapi.json"),
            *("-H", f"X-Admin-Key: {ADMIN_KEY}", "--generation-deterministic", "--max-examples", "15"),
            *("--exclude-checks", "positive_data_acceptance,use_after_free", "--continue-on-failure"),
            *("--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-4000:]
    assert f"Tested: {len(OPERATIONS)}" in told.stdout
    assert not re.search(r'"level": ?"(?:ERROR|CRITICAL)"', (tmp_path / "gateway.log").read_text())
