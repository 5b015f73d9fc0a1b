"""A real browser for the tests of the dashboard, and what every view of it has to be."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY
from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What a browser does by itself would ask hosts that the tests don't reach.
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_CHECKER = (Path(__file__).parent / "accessibility.js").read_text()
DEADLINE = 20.0
WIDE, PHONE = (1280, 900), (375, 800)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)")
expect.set_options(timeout=DEADLINE * 1000)


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield browser
        await browser.close()


class Dashboard:
    """A page of the dashboard of one gateway. ``problems``: what the browser complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("console", lambda message: self._told(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url))

    def _told(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.problems.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith(self.url):
            self.problems.append(f"asked another host: {url}")

    async def open(self, view: str = "overview") -> Page:
        """The view, once it shows something other than that it waits."""
        await self.page.goto(f"{self.url}/admin/ui#/{view}")
        await self.settled()
        return self.page

    async def log_in(self, key: str = ADMIN_KEY) -> Page:
        """From the login to the overview."""
        await self.page.goto(f"{self.url}/admin/ui")
        await self.page.get_by_label("Admin key").fill(key)
        await self.page.get_by_role("button", name="Log in").click()
        await expect(self.page.locator("#nav a[aria-current]")).to_be_attached()
        return self.page

    async def settled(self) -> None:
        """Until nothing of the view says any more that it waits."""
        await expect(self.page.locator("#main h1, #login h1").first).to_be_visible()
        await expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    async def complaints(self) -> list[str]:
        """What is wrong with the view as it stands: accessibility, and anything wider than the page."""
        found: list[str] = await self.page.evaluate(_CHECKER)
        inner, outer = await self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        if inner > outer:
            found.append(f"{inner} pixels in a page of {outer}")
        return [f"{self.page.url}: {one}" for one in found]


@contextlib.asynccontextmanager
async def dashboard(
    url: str, browser: Browser, size: tuple[int, int] = WIDE, **context: Any
) -> AsyncIterator[Dashboard]:
    """A new visitor, with cookies of its own; at the end the browser must have complained of nothing."""
    width, height = size
    made = await browser.new_context(viewport={"width": width, "height": height}, **context)
    made.set_default_timeout(DEADLINE * 1000)
    visitor = Dashboard(await made.new_page(), url)
    yield visitor
    await made.close()
    assert visitor.problems == []
