"""A target that answers with markup: operators read it on the dashboard, in a real browser, and nothing of it runs."""

from browser import chromium, dashboard, needs_chromium
from conftest import GatewayFactory, Target, until
from playwright.async_api import expect

pytestmark = needs_chromium

RUNS = "document.title='owned'"
MARKUP = f'<img src="x" onerror="{RUNS}"><script>{RUNS}</script><a href="javascript:{RUNS}">b</a>'


async def test_a_targets_answer_is_text(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """What a target sent is shown as it is written, makes no element and asks nobody for anything."""
    target.statuses["/bad"] = 404
    target.bodies["/bad"] = MARKUP.encode()
    gw = await gateway()
    _, made, _ = await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/bad"}})
    task_id = made["task_id"]

    async def is_dead() -> bool:
        seen = (await gw.call("GET", f"/v1/tasks/{task_id}?client_id={a_client}"))[1]
        return bool(seen["state"] == "dead" and seen["last_attempt"]["body"] == MARKUP)

    await until(is_dead)
    async with chromium() as browser, dashboard(gw.url, browser) as visitor:
        await visitor.log_in()
        for view, shown in ((f"tasks/{task_id}?client_id={a_client}", "<img src="), ("dead", task_id)):
            page = await visitor.open(view)
            await expect(page.locator("#main")).to_contain_text(shown)
            assert await page.title() != "owned"
            assert await page.locator("#main img, #main script, #main a[href^=javascript]").count() == 0
