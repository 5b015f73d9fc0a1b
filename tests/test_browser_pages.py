"""Every view of the dashboard, in a real browser, over a gateway with an hour behind it and work in every state."""

from collections.abc import AsyncIterator

import pytest
from browser import PHONE, WIDE, Dashboard, chromium, dashboard, needs_chromium
from playwright.async_api import expect
from showcase import KEY, Showcase, showcase

from gateway import metrics

pytestmark = needs_chromium


@pytest.fixture
async def shown(store_url: str) -> AsyncIterator[Showcase]:
    """The gateway."""
    async with showcase(store_url) as made:
        yield made
    metrics.configure(1000, None)


def views(shown: Showcase) -> dict[str, str]:
    """Each view, and something that is to be read on it."""
    tasks = shown.tasks
    return {
        "overview": "requests refused",
        "clients": "acme-billing",
        "clients?search=nobody": "No client matches",
        "clients/acme-billing": "Requests in the last minute",
        "clients/acme-billing?step=hour": "The last day, by hours",
        "clients/nobody": "client nobody does not exist",
        "tiers": "as shipped",
        "tasks": tasks["queued"],
        "tasks?state=dead&label=order-4712": tasks["dead"],
        "tasks?host=nowhere.example": "No task matches",
        f"tasks/{tasks['queued']}?client_id=acme-billing": "2 calls of the client are in flight",
        f"tasks/{tasks['dead']}?client_id=globex-orders": "Attempt 1",
        f"tasks/{tasks['queued']}": "Whose task is it?",
        "dead": tasks["dead"],
        "dead?error=nothing": "No dead letter matches",
        "jobs": "There are no jobs",
        "replicas": "noeviction",
        "audit": "umbrella-sync",
    }


async def visit(visitor: Dashboard, shown: Showcase) -> list[str]:
    """What is wrong with any of the views."""
    found: list[str] = []
    for view, text in views(shown).items():
        page = await visitor.open(view)
        await expect(page.locator("#main")).to_contain_text(text)
        found += await visitor.complaints()
    return found


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "dark"), (PHONE, "light")])
async def test_every_view_is_sound(shown: Showcase, size: tuple[int, int], scheme: str) -> None:
    """Nothing in the console, no other host, nothing wider than the page at 375 pixels, a name for all that is used, a
    structure that a screen reader can follow, and contrast enough, in both schemes."""
    async with chromium() as browser, dashboard(shown.url, browser, size, color_scheme=scheme) as visitor:
        page = await visitor.open("overview")
        found = await visitor.complaints()
        await visitor.log_in(KEY)
        found += await visit(visitor, shown)
        visitor.problems = [problem for problem in visitor.problems if "404" not in problem]  # the unknown client
        if size == PHONE:
            await page.get_by_role("button", name="Menu").click()
            await page.get_by_role("link", name="Audit log").click()
            await expect(page.get_by_role("heading", level=1)).to_have_text("Audit log")
        assert found == []
