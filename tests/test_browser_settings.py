"""Tiers, client keys and signing secrets on the dashboard, in a real browser."""

from typing import Any

from browser import PHONE, Dashboard, chromium, dashboard, needs_chromium
from conftest import Gateway, GatewayFactory, Target
from playwright.async_api import Page, expect
from test_browser import confirm, make, told

pytestmark = needs_chromium
READ_KEY = "the-key-of-one-who-looks"


async def tier(gw: Gateway, name: str) -> Any:
    return (await gw.admin("GET", "/admin/tiers"))[1]["tiers"].get(name)


async def fill(page: Page, **fields: str) -> None:
    """Fields of the dialog that is open, by their names."""
    for name, value in fields.items():
        await page.locator(f"dialog [name={name}]").fill(value)


async def shown_once(page: Page, field: str) -> str:
    """What was made, read from the dialog that shows it, which is closed by the keyboard."""
    await expect(page.get_by_role("dialog")).to_contain_text("Copy it now")
    text = await page.get_by_role("textbox", name=f"The {field}").input_value()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert text not in await page.content()
    return text


async def sound(visitor: Dashboard) -> None:
    """As every view has to be, on a phone too."""
    assert await visitor.complaints() == []
    wide = visitor.page.viewport_size
    assert wide is not None
    await visitor.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert await visitor.complaints() == []
    await visitor.page.set_viewport_size(wide)


async def test_tiers_are_stored_changed_and_deleted(gateway: GatewayFactory) -> None:
    """The page shows each tier with its clients and revenue; a new one, a change and a removal are asked about first,
    and hold; what the form can't take is not sent, what is in use stays and says so."""
    gw = await gateway(dispatch=False)
    async with chromium() as browser, dashboard(gw.url, browser, color_scheme="dark") as visitor:
        page = await visitor.log_in()
        await page.keyboard.press("g")
        await page.keyboard.press("l")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Tiers")
        await page.get_by_role("button", name="New tier…").click()
        await fill(page, name="a b", max_concurrent="8", requests_per_min="600")
        await confirm(page, "Review")
        await expect(page.locator("dialog [name=name]:invalid")).to_be_visible()
        await fill(page, name="gold", price="49.5")
        await sound(visitor)
        await confirm(page, "Review")
        await expect(page.get_by_role("dialog")).to_contain_text("Create gold?")
        await confirm(page, "Create")
        await told(page, "gold is there.")
        assert await tier(gw, "gold") == {"max_concurrent": 8, "requests_per_min": 600, "price": 49.5}
        for number in range(2):
            await make(gw, f"client-{number}", tier="gold")
        await gw.store.figured.look()
        await page.keyboard.press("r")
        row = page.get_by_role("row", name="gold")
        await expect(row).to_contain_text("99")
        await sound(visitor)
        await row.get_by_role("button", name="Delete gold").click()
        await confirm(page, "Delete")
        await told(page, "Tier in use")
        visitor.problems.clear()  # the browser tells of the 409
        await row.get_by_role("button", name="Edit gold").click()
        await fill(page, requests_per_min="700", price="")
        await confirm(page, "Review")
        await expect(page.get_by_role("dialog")).to_contain_text("It is the tier of 2 clients.")
        await expect(page.get_by_role("dialog").locator("tbody tr")).to_have_count(2)
        await confirm(page, "Change")
        await told(page, "gold is changed.")
        assert await tier(gw, "gold") == {"max_concurrent": 8, "requests_per_min": 700}
        await row.get_by_role("link", name="2 clients of gold").click()
        await expect(page.get_by_role("link", name="client-1")).to_be_visible()
        for number in range(2):
            await make(gw, f"client-{number}", tier="free")
        await visitor.open("tiers")
        await row.get_by_role("button", name="Delete gold").click()
        await confirm(page, "Delete")
        await told(page, "gold is deleted.")
        await expect(row).to_have_count(0)
        assert await tier(gw, "gold") is None
        await visitor.open("audit?action=tier")
        for entry in ("gold: removed", "gold: requests_per_min 600 → 700", "gold: made"):
            await expect(page.locator("tbody")).to_contain_text(entry)


async def test_keys_are_made_rotated_and_revoked(gateway: GatewayFactory, target: Target) -> None:
    """A key is shown once, opens what it is for, and is needed once an operator says so; its successor leaves it valid
    until it is revoked; without the last one the client is closed, until an operator types that it needs none."""
    gw = await gateway(dispatch=False)
    await make(gw, "acme")

    async def enqueues(key: str) -> int:
        body = {"client_id": "acme", "task": {"url": f"{target.url}/x"}}
        return (await gw.call("POST", "/v1/enqueue", json=body, headers={"X-Client-Key": key} if key else {}))[0]

    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        await visitor.log_in()
        page = await visitor.open("clients/acme")
        keys = page.locator("section", has=page.get_by_role("heading", name="Keys", exact=True))
        await expect(keys).to_contain_text("It has no key")
        await keys.get_by_role("button", name="New key…").click()
        await page.get_by_label("Refuse requests without it at once").uncheck()
        await confirm(page, "Make it")
        first = await shown_once(page, "key")
        await expect(keys.locator("tbody tr")).to_have_count(1)
        assert (await enqueues(first), await enqueues("")) == (201, 201)
        await keys.get_by_role("button", name="Need one…").click()
        await confirm(page, "Need one")
        await expect(keys).to_contain_text("a key is needed")
        assert (await enqueues(first), await enqueues("")) == (201, 401)
        await keys.get_by_role("button", name="Rotate…").click()
        await confirm(page, "Make it")
        second = await shown_once(page, "key")
        await expect(keys.locator("tbody tr")).to_have_count(2)
        assert (await enqueues(first), await enqueues(second)) == (201, 201)
        await sound(visitor)
        await keys.get_by_role("button", name="Revoke key_").first.click()
        await confirm(page, "Revoke")
        await expect(keys.locator("tbody tr")).to_have_count(1)
        assert (await enqueues(first), await enqueues(second)) == (401, 201)
        await keys.get_by_role("button", name="Revoke key_").click()
        await expect(page.get_by_role("dialog")).to_contain_text("It is the only one")
        await confirm(page, "Revoke")
        await expect(keys).to_contain_text("It has no key, and is closed")
        assert await enqueues("") == 401
        await keys.get_by_role("button", name="Need none…").click()
        await expect(page.get_by_role("dialog").get_by_role("button", name="Need none")).to_be_disabled()
        await page.get_by_role("dialog").get_by_role("textbox").fill("acme")
        await confirm(page, "Need none")
        await expect(keys).to_contain_text("no key is needed")
        assert await enqueues("") == 201


async def test_signing_secrets_are_made_rotated_and_deleted(gateway: GatewayFactory) -> None:
    """A secret is shown once; a second one may stand beside it, until the old one is deleted."""
    gw = await gateway(dispatch=False)
    await make(gw, "acme")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        await visitor.log_in()
        page = await visitor.open("clients/acme")
        secrets = page.locator("section", has=page.get_by_role("heading", name="Signing secrets"))
        await expect(secrets).to_contain_text("Its deliveries are not signed")
        for number, button in enumerate(("New secret…", "Rotate…")):
            await secrets.get_by_role("button", name=button).click()
            await confirm(page, "Make it")
            assert (await shown_once(page, "secret")).startswith("whsec_")
            await expect(secrets.locator("tbody tr")).to_have_count(number + 1)
        await expect(secrets.get_by_role("button", name="Rotate…")).to_have_count(0)
        for left in (1, 0):
            await secrets.get_by_role("button", name="Delete sec_").first.click()
            await confirm(page, "Delete")
            await expect(secrets.locator("tbody tr")).to_have_count(left)
        assert (await gw.admin("GET", "/admin/clients/signing?client_id=acme"))[1]["secrets"] == []


async def test_who_may_only_look_is_offered_nothing(gateway: GatewayFactory) -> None:
    """With the role `read` tiers, keys and secrets are shown, and no button that changes any."""
    gw = await gateway(dispatch=False, admin_keys=f"looker:read:{READ_KEY}")
    await make(gw, "acme")
    await gw.admin("POST", "/admin/clients/keys?client_id=acme")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        await visitor.log_in(READ_KEY)
        page = await visitor.open("tiers")
        await expect(page.get_by_role("row", name="enterprise")).to_be_visible()
        await expect(page.locator("#main button")).to_have_count(0)
        await visitor.open("clients/acme")
        await expect(page.get_by_text("a key is needed")).to_be_visible()
        await expect(page.locator("#main button")).to_have_count(0)
