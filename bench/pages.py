"""The pages of the dashboard in a real browser: how long each takes until nothing of it waits any more."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
VIEWS = (
    *("overview", "clients", "clients?tier=premium", "client", "tasks", "tasks?order=oldest", "tasks?status=404"),
    *("dead", "jobs", "replicas", "audit"),
)


async def pages(url: str, client_id: str) -> AsyncIterator[tuple[str, Callable[[], Awaitable[Any]]]]:
    """Each view's name and what opens it anew; none where there is no browser."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    try:
        from playwright.async_api import async_playwright, expect  # noqa: PLC0415 - a package of the development alone
    except ImportError:
        return
    if program is None:
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        page = await browser.new_page()
        page.set_default_timeout(30_000)
        for view in VIEWS:

            async def opened(view: str = view) -> None:
                await page.goto("about:blank")
                await page.goto(f"{url}/admin/ui#/{f'clients/{client_id}' if view == 'client' else view}")
                await page.locator("#main h1").first.wait_for()
                await expect(page.locator("#main [aria-busy=true]")).to_have_count(0, timeout=30_000)

            yield f"page: {view}", opened
        await browser.close()
