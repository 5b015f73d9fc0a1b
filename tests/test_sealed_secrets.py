"""TASK_ENCRYPTION_KEYS and signing secrets: what lies in Redis, and that no call goes out without its signature,
whatever becomes of keys."""

import base64
import json
from typing import Any

import pytest
from commands import run
from conftest import ADMIN_KEY, Gateway, GatewayFactory, Target
from deployments import Deployment, standalone
from sealed import everything, gateways, raw, store_url
from test_sealed_tasks import NEW, OLD, reaches, stored
from test_signing import BODY, client, delivered, secret, verified

__all__ = ["gateways", "raw", "store_url"]  # fixtures


async def keyed(gateways: GatewayFactory, keys: str, **settings: Any) -> Gateway:
    return await gateways(task_encryption_keys=keys, **settings)


async def test_redis_does_not_have_what_signs(
    gateways: GatewayFactory, target: Target, raw: Any, a_client: str
) -> None:
    """With keys the secret lies sealed and signs all the same; without, the same look finds it."""
    gw = await keyed(gateways, OLD)
    made = await secret(gw, await client(gw, a_client))
    text = made["secret"].removeprefix("whsec_")
    held = await everything(raw)
    assert (text in held, base64.b64decode(text).hex() in held, made["sealed_with"]) == (False, False, "old1")
    assert verified(await delivered(gw, target, a_client), made["secret"])
    open_client = f"{a_client}-open"
    gw = await keyed(gateways, f"none,{OLD}")
    made = await secret(gw, await client(gw, open_client))
    assert made["secret"].removeprefix("whsec_") in await everything(raw)
    assert made["sealed_with"] is None


async def test_what_was_stored_before_signs_on_and_keys_change(
    gateways: GatewayFactory, target: Target, raw: Any, a_client: str
) -> None:
    """A secret from before the setting is opened by a gateway with keys; resealed it is sealed, by the next key too,
    and once the old key is gone it still signs; with `none` first it is in the clear again."""
    gw = await gateways(dispatch=False)
    where = await client(gw, a_client)
    text = (await secret(gw, where))["secret"]
    again = "/admin/clients/signing/reseal"
    for count, (keys, sealed_with) in enumerate(
        ((OLD, "old1"), (f"{NEW},{OLD}", "new1"), (NEW, "new1"), (f"none,{NEW}", None)), start=1
    ):
        gw = await keyed(gateways, keys)
        assert verified(await delivered(gw, target, a_client, count), text)
        _, done, _ = await gw.admin("POST", again)
        assert (done["resealed"], done["unreadable"], done["next_cursor"]) == (int(keys != NEW), [], None)
        [shown] = (await gw.admin("GET", where))[1]["secrets"]
        assert shown["sealed_with"] == sealed_with
        assert (text.removeprefix("whsec_") in await everything(raw)) == (sealed_with is None)
        assert (await gw.admin("POST", again))[1]["resealed"] == 0
        assert gw.dispatcher is not None
        await gw.dispatcher.__aexit__(None, None, None)  # or it would make the next call
    assert "reseal_signing_secrets" in str(await gw.admin("GET", "/admin/audit"))


@standalone
@pytest.mark.parametrize("what", ["gone", "moved", "changed", "nonsense"])
async def test_nothing_goes_out_unsigned(
    gateways: GatewayFactory, target: Target, raw: Any, a_client: str, *, what: str, deployment: Deployment
) -> None:
    """A client's calls are not made while a secret of it can't be opened, though it has another one that can: the
    attempt says why, operators see which, other clients go on, and with the key back the task is called, signed."""
    gw = await keyed(gateways, OLD, dispatch=False)
    where = await client(gw, a_client)
    made = await secret(gw, where)
    moved = await secret(gw, await client(gw, f"{a_client}-other"))
    field, right = next(iter((await raw.hgetall(deployment.key(f"signing:{a_client}", a_client))).items()))
    time, sealed = right.split(b" ")
    other = (await raw.hgetall(deployment.key(f"signing:{a_client}-other", f"{a_client}-other")))[
        moved["secret_id"].encode()
    ]
    wrong = {
        "gone": right,
        "moved": other,
        "changed": time + b" " + sealed[:-8] + b"AAAAAAAA",
        "nonsense": b"what is this",
    }[what]
    await raw.hset(deployment.key(f"signing:{a_client}", a_client), field, wrong)
    await secret(await keyed(gateways, NEW, dispatch=False), where)
    gw = await keyed(gateways, NEW if what == "gone" else f"{NEW},{OLD}")
    reason = {
        "gone": "sealed with the key old1, which TASK_ENCRYPTION_KEYS does not have",
        "moved": "sealed content was changed, or moved from another client (key old1)",
        "changed": "sealed content was changed, or moved from another client (key old1)",
        "nonsense": "is not as the gateway stores one",
    }[what]
    retries = int(what == "gone")
    task = {"client_id": a_client, "max_retry": retries, "task": {"url": f"{target.url}/hook", "body": BODY}}
    lost = await stored(gw, task)
    seen = await reaches(gw, a_client, lost, "dead")
    assert (seen["reason"], seen["attempts"]) == (f"signing secret {reason}", 1 + retries)
    shown = {each["secret_id"]: each["unreadable"] for each in (await gw.admin("GET", where))[1]["secrets"]}
    assert shown.pop(made["secret_id"]) == reason
    assert list(shown.values()) == [None]
    await delivered(gw, target, f"{a_client}-free")
    assert len(target.calls) == 1
    env = {"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY}
    told = await run("signing", "reseal", env=env)
    assert (told.code, f"{a_client} {made['secret_id']}: {reason}" in told.err) == (1, True)
    assert reason in (await run("signing", "list", a_client, env=env)).out
    await raw.hset(deployment.key(f"signing:{a_client}", a_client), field, right)
    back = await keyed(gateways, f"{NEW},{OLD}")
    assert gw.dispatcher is not None
    await gw.dispatcher.__aexit__(None, None, None)
    assert (await back.admin("POST", f"/admin/dead/replay?client_id={a_client}&task_id={lost}"))[0] == 200
    assert verified((await target.received(2))[-1], made["secret"])


async def test_all_clients_are_resealed_by_page(gateways: GatewayFactory, a_client: str) -> None:
    """The call takes a page of clients and says where to go on; the command goes through all of them."""
    gw = await gateways(dispatch=False)
    names = [f"{a_client}-{number}" for number in range(3)]
    for name in names:
        await secret(gw, await client(gw, name))
    gw = await keyed(gateways, OLD, dispatch=False)
    again = "/admin/clients/signing/reseal?limit=2"
    _, page, _ = await gw.admin("POST", again)
    assert (page["clients"], page["resealed"], page["next_cursor"]) == (2, 2, names[1])
    _, page, _ = await gw.admin("POST", f"{again}&cursor={names[1]}")
    assert (page["clients"], page["resealed"], page["next_cursor"]) == (1, 1, None)
    gw = await keyed(gateways, f"{NEW},{OLD}", dispatch=False)
    told = await run("signing", "reseal", "--json", env={"GATEWAY_URL": gw.url, "ADMIN_API_KEY": ADMIN_KEY})
    assert json.loads(told.out) == {"clients": 3, "resealed": 3, "unreadable": []}
    for wrong in ("limit=0", "limit=501", "cursor=%20", "client_id=x"):
        assert (await gw.admin("POST", f"/admin/clients/signing/reseal?{wrong}"))[0] == 400
