"""Signed deliveries: what a receiver verifies with the `standardwebhooks` package, and how operators change secrets."""

import json
import time
from typing import Any

import pytest
from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target, until
from standardwebhooks import Webhook, WebhookVerificationError

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.store.keyspace import Keyspace
from gateway.store.sealing import Sealer
from gateway.store.signing import SigningSecrets

BODY = {"order": 7, "text": "größer"}


async def client(gw: Gateway, name: str) -> str:
    """The address of the client's secrets, once there is such a client."""
    assert (await gw.admin("PUT", "/admin/clients/set", json={"client_id": name}))[0] == 200
    return f"/admin/clients/signing?client_id={name}"


async def secret(gw: Gateway, where: str) -> dict[str, Any]:
    status, made, _ = await gw.admin("POST", where)
    assert status == 201, made
    return dict(made)


async def delivered(gw: Gateway, target: Target, name: str, count: int = 1, **task: Any) -> dict[str, Any]:
    """The last of so many calls in all, after one more task."""
    body = {"client_id": name, "task": {"url": f"{target.url}/hook", "body": BODY, **task}}
    assert (await gw.enqueue(body))[0] == 201
    return (await target.received(count))[-1]


def verified(call: dict[str, Any], text: str) -> bool:
    """Whether a receiver with this secret takes the call."""
    try:
        Webhook(text).verify(call["body"], {name.lower(): value for name, value in call["headers"].items()})
    except WebhookVerificationError:
        return False
    return True


async def test_a_receiver_verifies_and_secrets_rotate(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Unsigned without a secret; with two, either one verifies; once the old one is removed, the new one alone does."""
    gw = await gateway()
    where = await client(gw, a_client)
    assert not any(name.lower().startswith("webhook-") for name in (await delivered(gw, target, a_client))["headers"])
    old = await secret(gw, where)
    call = await delivered(gw, target, a_client, 2)
    assert verified(call, old["secret"])
    assert call["headers"]["webhook-id"] == call["headers"]["X-Task-ID"]
    for name, other in (("webhook-id", "another"), ("webhook-timestamp", str(int(time.time()) - 1))):
        assert not verified({**call, "headers": {**call["headers"], name: other}}, old["secret"])
    call["body"] += b" "
    assert not verified(call, old["secret"])
    new = await secret(gw, where)
    both = await delivered(gw, target, a_client, 3)
    assert (verified(both, old["secret"]), verified(both, new["secret"])) == (True, True)
    assert (await gw.admin("DELETE", f"{where}&secret_id={old['secret_id']}"))[0] == 204
    call = await delivered(gw, target, a_client, 4)
    assert (verified(call, old["secret"]), verified(call, new["secret"])) == (False, True)


async def test_retries_keep_the_id_and_a_task_forges_nothing(
    gateway: GatewayFactory, target: Target, a_client: str
) -> None:
    """Each attempt is signed anew under the task's id; what a task says in these headers is not sent."""
    gw = await gateway()
    text = (await secret(gw, await client(gw, a_client)))["secret"]
    target.statuses["/hook"] = [503, 200]
    forged = {"Webhook-Id": "mine", "WEBHOOK-SIGNATURE": "v1,mine", "webhook-timestamp": "1"}
    await delivered(gw, target, a_client, 2, headers=forged)
    first, second = target.calls
    assert verified(first, text)
    assert verified(second, text)
    assert first["headers"]["webhook-id"] == second["headers"]["webhook-id"]
    assert "mine" not in str(first["headers"])


async def test_a_task_without_a_body_is_signed(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """The signature covers an empty body, too."""
    gw = await gateway()
    text = (await secret(gw, await client(gw, a_client)))["secret"]
    body = {"client_id": a_client, "task": {"url": f"{target.url}/hook", "method": "GET"}}
    assert (await gw.enqueue(body))[0] == 201
    [call] = await target.received(1)
    # The package's verify() parses what it has verified as JSON; an empty text is none.
    with pytest.raises(json.JSONDecodeError):
        verified(call, text)


async def test_every_replica_hears_of_a_change(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Another process that has just signed for the client uses a new secret, and forgets it with the client."""
    one, two = await gateway(dispatch=False), await gateway()
    where = await client(one, a_client)
    await delivered(two, target, a_client)
    text = (await secret(one, where))["secret"]
    calls = 1

    async def signed() -> bool:
        nonlocal calls
        calls += 1
        return verified(await delivered(two, target, a_client, calls), text)

    await until(signed)
    assert (await one.admin("DELETE", f"/admin/clients/delete?client_id={a_client}"))[0] == 204
    assert (await one.admin("GET", where))[0] == 404
    await client(one, a_client)
    assert (await one.admin("GET", where))[1]["secrets"] == []


async def test_a_secret_is_shown_once(
    gateway: GatewayFactory, a_client: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the list, the client, the audit log, the metrics nor the log have it; two is what a client may have."""
    gw = await gateway(dispatch=False)
    where = await client(gw, a_client)
    status, made, headers = await gw.admin("POST", where)
    assert (status, headers["Cache-Control"]) == (201, "no-store")
    second = await secret(gw, where)
    status, refused, _ = await gw.admin("POST", where)
    assert (status, refused["message"]) == (
        409,
        f"{a_client} has 2 signing secrets; remove the one that is no longer used first.",
    )
    paths = (where, "/admin/clients", f"/admin/clients/get?client_id={a_client}", "/admin/audit")
    seen = [(await gw.admin("GET", path))[1] for path in paths]
    assert [each["secret_id"] for each in seen[0]["secrets"]] == [made["secret_id"], second["secret_id"]]
    assert "create_signing_secret" in str(seen[3])
    everything = repr([*seen, metrics.render()[0], *capsys.readouterr(), await gw.store.signing.get(a_client)])
    for each in (made, second):
        assert each["secret"].removeprefix("whsec_") not in everything
        assert each["secret_id"] in everything


@pytest.mark.parametrize("wrong", ["", "&secret_id=", "&secret_id=sec_x", "&secret_id=whsec_0123"])
async def test_what_is_removed_is_named(gateway: GatewayFactory, a_client: str, wrong: str) -> None:
    """400 says where the id is to be found; one that there is not is 404."""
    gw = await gateway(dispatch=False)
    where = await client(gw, a_client)
    status, body, _ = await gw.admin("DELETE", where + wrong)
    assert (status, "GET /admin/clients/signing" in body["message"]) == (400, True)
    assert (await gw.admin("DELETE", f"{where}&secret_id=sec_00000000"))[0] == 404
    assert (await gw.admin("POST", "/admin/clients/signing?client_id=nobody"))[0] == 404


async def test_a_call_waits_for_its_secret_while_redis_is_away() -> None:
    """Nothing goes out unsigned because the secrets could not be read."""

    class Runner:
        keyspace = Keyspace("", 1)
        calls = 0

        async def command(self, *_: Any, **__: Any) -> list[bytes]:
            self.calls += 1
            if self.calls < 3:
                raise StoreUnavailable("away")
            return [b"sec_1", b"1 c2VjcmV0"]

    assert await SigningSecrets(Runner(), Sealer(())).keys("acme") == [b"secret"]  # type: ignore[arg-type]


async def test_the_commands(gateway: GatewayFactory, a_client: str) -> None:
    """`gateway signing create`, `list` and `remove` do and show it."""
    gw = await gateway(dispatch=False)
    await client(gw, a_client)
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    created = await run("signing", "create", a_client, env=env)
    assert (created.code, created.out.startswith("whsec_")) == (0, True)
    made = json.loads((await run("signing", "create", a_client, "--json", env=env)).out)
    assert made["secret_id"] in (await run("signing", "list", a_client, env=env)).out
    removed = await run("signing", "remove", a_client, made["secret_id"], env=env)
    assert removed.out.strip() == f"removed {made['secret_id']}"
    [left] = json.loads((await run("signing", "list", a_client, "--json", env=env)).out)["secrets"]
    assert left["secret_id"] in created.err
