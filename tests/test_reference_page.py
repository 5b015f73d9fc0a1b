"""The reference page at `/docs` in a real browser."""

import pytest
from browser import PHONE, WIDE, chromium, dashboard, needs_chromium
from conftest import GatewayFactory
from playwright.async_api import expect

pytestmark = needs_chromium


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
async def test_the_reference_page_is_readable(gateway: GatewayFactory, size: tuple[int, int], scheme: str) -> None:
    """On a desk and on a phone, light and dark: nothing in the console, no other host asked, nothing wider than the
    page, no complaint of the accessibility checker, also with every example open; links lead to their calls."""
    gw = await gateway(dispatch=False)
    async with chromium() as browser, dashboard(gw.url, browser, size, color_scheme=scheme) as visitor:
        page = visitor.page
        await page.goto(f"{gw.url}/docs")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Task-dispatch gateway")
        assert await visitor.complaints() == []
        await page.get_by_role("navigation").get_by_role("link", name="POST /v1/enqueue", exact=True).click()
        call = page.locator("#post_v1_enqueue")
        await expect(call.get_by_role("heading", name="POST /v1/enqueue")).to_be_in_viewport()
        await call.get_by_text("Example").first.click()
        await expect(call.get_by_text('"client_id": "my-service-123"').first).to_be_visible()
        await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert await visitor.complaints() == []
