"""The dashboard in a real browser: login and logout, clients, dead letters, what is live, and what no page may do."""

import re
from typing import Any

import pytest
from browser import chromium, dashboard, needs_chromium
from conftest import ADMIN_KEY, Gateway, GatewayFactory, until
from playwright.async_api import Page, expect

from gateway.admin.events import STREAMS, Streams

pytestmark = needs_chromium


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is live is told at once, or the tests would wait for it."""
    monkeypatch.setattr("gateway.admin.events.EVERY_SECONDS", 0.1)


def streams(gw: Gateway) -> Streams:
    """Those of the gateway's /admin."""
    return next(sub[STREAMS] for sub in gw.app._subapps)


async def make(gw: Gateway, client_id: str, **more: Any) -> None:
    status, body, _ = await gw.admin("PUT", "/admin/clients/set", json={"client_id": client_id, **more})
    assert status == 200, body


async def confirm(page: Page, button: str) -> None:
    """The button of the dialog that is open."""
    await page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()


async def told(page: Page, text: str) -> None:
    """What was done is said."""
    await expect(page.locator("#toasts")).to_contain_text(text)


async def test_login_and_logout(gateway: GatewayFactory) -> None:
    """A wrong key is told, the right one opens the page that was asked for; no script sees the cookie; after the logout
    the page shows nothing, and what the browser had is worth nothing."""
    gw = await gateway(dispatch=False)
    await make(gw, "acme")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.open("clients/acme")
        await expect(page.get_by_role("heading", name="Gateway")).to_be_visible()
        await page.get_by_label("Admin key").fill("wrong")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("alert")).to_have_text("That is not an admin key of this gateway.")
        assert [problem for problem in visitor.problems if "401" not in problem] == []
        visitor.problems.clear()
        await page.get_by_label("Admin key").fill(ADMIN_KEY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Client acme")
        assert await page.evaluate("document.cookie") == ""
        [cookie] = await page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/admin")
        await page.reload()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Client acme")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Admin key")).to_be_focused()
        assert await page.locator("#main").inner_text() == ""
        assert await page.context.cookies() == []
        held = {"Cookie": f"{cookie['name']}={cookie['value']}"}
        assert (await gw.call("GET", "/admin/session", headers=held))[0] == 401


async def test_without_a_key_there_is_no_login(gateway: GatewayFactory) -> None:
    """A gateway without an admin key shows its pages at once, and offers no logout."""
    gw = await gateway(dispatch=False, admin_api_key="")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        for view in ("overview", "clients"):
            page = await visitor.open(view)
            await expect(page.get_by_text("There are no clients yet")).to_be_visible()
        await expect(page.get_by_role("button", name="Log out")).to_have_count(0)


async def test_a_session_that_ends_asks_for_the_key_again(gateway: GatewayFactory) -> None:
    """Where the session is ended elsewhere, the next thing that is asked leads to the login, and from there back."""
    gw = await gateway(dispatch=False)
    await make(gw, "acme")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.log_in()
        await visitor.open("clients")
        [cookie] = await page.context.cookies()
        held = {"Cookie": f"{cookie['name']}={cookie['value']}", "X-Requested-With": "test"}
        assert (await gw.call("DELETE", "/admin/session", headers=held))[0] == 204
        await page.get_by_role("link", name="acme").click()
        await expect(page.get_by_text("The session is over.")).to_be_visible()
        visitor.problems.clear()  # the browser tells of the 401
        await page.get_by_label("Admin key").fill(ADMIN_KEY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Client acme")


async def test_clients_are_searched_filtered_and_paged(gateway: GatewayFactory) -> None:
    """Search and filters go into the URL and find what the API finds; Next page and Back lead on and back."""
    gw = await gateway(dispatch=False)
    for number in range(60):
        await make(gw, f"client-{number:02}", tier="basic" if number % 2 else "free", enabled=number != 7)
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.log_in()
        await visitor.open("clients")
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(50)
        await expect(page.locator(".heading")).to_contain_text("60 clients")
        await page.get_by_role("link", name="Next page").click()
        await expect(rows).to_have_count(10)
        await page.go_back()
        await expect(rows).to_have_count(50)
        await page.keyboard.press("/")
        await expect(page.get_by_label("Id contains")).to_be_focused()
        await page.keyboard.type("IENT-0")
        await page.keyboard.press("Enter")
        await expect(rows).to_have_count(10)
        await page.get_by_label("Takes requests").select_option("disabled")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("client-07")
        assert "search=IENT-0" in page.url
        await page.get_by_label("Tier").fill("enterprise")
        await page.get_by_role("button", name="Apply").click()
        await expect(page.get_by_text("No client matches")).to_be_visible()
        await page.get_by_role("button", name="Clear").click()
        await expect(rows).to_have_count(50)


async def test_a_client_is_made_edited_paused_and_deleted(gateway: GatewayFactory) -> None:
    """Each change shows what it would do first, is made only when confirmed, and is what the API then answers."""
    gw = await gateway(dispatch=False)
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.log_in()
        await visitor.open("clients")
        dialog = page.get_by_role("dialog")
        await page.get_by_role("button", name="New client").click()
        await dialog.get_by_label("Client id").fill("acme")
        await dialog.locator("[name=tier]").select_option("free")
        await confirm(page, "Review")
        await expect(dialog).to_contain_text("1 at once, 10 a minute (the tier’s)")
        await confirm(page, "Create")
        await told(page, "acme is there.")
        await page.get_by_role("link", name="acme").click()
        await page.get_by_role("button", name="Edit…").click()
        await dialog.get_by_label("Limits of its own").check()
        await dialog.get_by_label("Calls at once").fill("0")
        await confirm(page, "Review the changes")
        await expect(dialog.get_by_label("Calls at once")).to_be_focused()  # the browser says what would be right
        await dialog.get_by_label("Calls at once").fill("7")
        await dialog.get_by_label("Allowed queues").fill("default, critical")
        await confirm(page, "Review the changes")
        await expect(dialog.locator("tbody tr")).to_have_count(2)
        await expect(dialog).to_contain_text("7 at once, 10 a minute (its own)")
        await confirm(page, "Cancel")
        assert (await gw.admin("GET", "/admin/clients/get?client_id=acme"))[1]["source"] == "tier"
        await page.get_by_role("button", name="Edit…").click()
        await dialog.get_by_label("Limits of its own").check()
        await dialog.get_by_label("Calls at once").fill("7")
        await dialog.get_by_label("Takes new requests").uncheck()
        await confirm(page, "Review the changes")
        await make(gw, "acme", allowed_queues=["default"])  # by somebody else, meanwhile
        await confirm(page, "Change")
        await told(page, "acme is changed.")
        now = (await gw.admin("GET", "/admin/clients/get?client_id=acme"))[1]
        assert (now["rate_limit"]["max_concurrent"], now["source"], now["enabled"]) == (7, "client", False)
        assert now["allowed_queues"] == ["default"]
        await expect(page.locator(".heading .badge", has_text="disabled")).to_be_visible()
        await page.get_by_role("button", name="Pause…", exact=True).click()
        await confirm(page, "Pause")
        await told(page, "acme is paused.")
        await expect(page.locator(".heading .badge", has_text="paused")).to_be_visible()
        await page.get_by_role("button", name="Resume…", exact=True).click()
        await confirm(page, "Resume")
        await told(page, "acme is resumed.")
        await expect(page.locator(".heading .badge", has_text="paused")).to_have_count(0)
        await page.get_by_role("button", name="Delete…").click()
        await expect(dialog.get_by_role("button", name="Delete")).to_be_disabled()
        await dialog.get_by_label("Type acme to go on").fill("acme")
        await confirm(page, "Delete")
        await expect(page.get_by_text("There are no clients yet")).to_be_visible()
        await visitor.open("audit")
        await expect(page.locator("tbody tr")).to_have_count(6)
        await page.get_by_role("button", name=re.compile("^Show all of delete")).click()
        await expect(dialog).to_contain_text('"max_concurrent": 7')
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)


async def test_events_stop_while_the_page_is_hidden(gateway: GatewayFactory) -> None:
    """A page that nobody looks at holds no stream open; once it is looked at again it is live again; nor does a page
    that shows nothing live, or one that was left."""
    gw = await gateway(dispatch=False)
    await make(gw, "acme")
    opened = streams(gw)
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.log_in()
        await visitor.open("clients/acme")
        await until(lambda: opened.open == 1)
        await expect(page.locator(".livestate")).to_have_text("Live")
        await look_away(page, hidden=True)
        await until(lambda: opened.open == 0)
        await expect(page.locator(".livestate")).to_have_text("Resting while hidden")
        await gw.admin("POST", "/admin/clients/pause?client_id=acme")
        await look_away(page, hidden=False)
        await until(lambda: opened.open == 1)
        await expect(page.locator(".heading .badge", has_text="paused")).to_be_visible()
        await visitor.open("audit")
        await until(lambda: opened.open == 0)
        await visitor.open("clients/acme")
        await until(lambda: opened.open == 1)
    await until(lambda: opened.open == 0)


async def look_away(page: Page, *, hidden: bool) -> None:
    """As the browser tells it when another tab or window is before the page."""
    await page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            const word = hidden ? "hidden" : "visible";
            Object.defineProperty(document, "visibilityState", { value: word, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def test_keyboard_alone_will_do(gateway: GatewayFactory) -> None:
    """The first Tab offers to skip the navigation; the focus is to be seen wherever it is; letters lead from page to
    page, not while something is typed; a dialog keeps the focus and Esc closes it."""
    gw = await gateway(dispatch=False)
    await make(gw, "acme")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.log_in()
        await visitor.open("clients")
        await page.reload()
        await visitor.settled()
        await page.evaluate("document.activeElement.blur()")
        await page.locator("#skip").focus()
        await expect(page.locator("#skip")).to_be_in_viewport()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        for _ in range(7):  # as many as can have it here
            await page.keyboard.press("Tab")
            focused, style = await page.evaluate(
                "[document.activeElement.outerHTML, getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert style != "none", focused
        await page.get_by_label("Id contains").focus()
        await page.keyboard.type("ga?")
        assert "#/clients" in page.url
        await page.locator("h1").focus()
        await page.keyboard.press("g")
        await page.keyboard.press("a")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Audit log")
        await page.keyboard.press("?")
        dialog = page.get_by_role("dialog", name="Shortcuts")
        await expect(dialog).to_be_visible()
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.closest('dialog, body').tagName") in {"DIALOG", "BODY"}
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)


async def test_a_gateway_that_fails_is_told_and_tried_again(gateway: GatewayFactory) -> None:
    """Where an answer is 503 the view says what is wrong and what to do, and Try again shows it once it works."""
    gw = await gateway(dispatch=False)
    await make(gw, "acme")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.log_in()
        body = '{"error": "Service unavailable", "message": "Redis is out of reach"}'
        listing = re.compile(r"/admin/clients\?")
        await page.route(listing, lambda route: route.fulfill(status=503, body=body))
        await visitor.open("clients")
        await expect(page.get_by_role("alert")).to_contain_text("Redis is out of reach")
        await page.unroute(listing)
        visitor.problems.clear()  # the browser tells of the 503
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("link", name="acme")).to_be_visible()


async def test_what_a_role_forbids_is_not_offered(gateway: GatewayFactory) -> None:
    """A key that may only read sees no button that changes anything, and a change that it sends all the same is 403."""
    gw = await gateway(dispatch=False, admin_keys="night:read:the-key-of-the-night")
    await make(gw, "acme")
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        page = await visitor.log_in("the-key-of-the-night")
        await expect(page.locator("#who")).to_contain_text("night (read)")
        for view in ("clients", "clients/acme", "tasks", "dead"):
            await visitor.open(view)
            await expect(page.locator("main .heading button")).to_have_count(0)
        status = await page.evaluate(
            """() => fetch("/admin/clients/pause?client_id=acme", {method: "POST", headers: {"X-Requested-With": "x"}})
                .then((answer) => answer.status)"""
        )
        assert status == 403
        visitor.problems.clear()  # the browser tells of the 403
