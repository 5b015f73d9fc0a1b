"""What operators do on the dashboard about tasks, in a real browser: find out why, act on one, act on many."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from browser import WIDE, Dashboard, chromium, dashboard, needs_chromium
from conftest import until
from playwright.async_api import Page, expect
from showcase import KEY, Showcase, showcase

from gateway import metrics

pytestmark = needs_chromium


@pytest.fixture
async def shown(store_url: str) -> AsyncIterator[Showcase]:
    async with showcase(store_url) as made:
        yield made
    metrics.configure(1000, None)


@pytest.fixture
async def visitor(shown: Showcase) -> AsyncIterator[Dashboard]:
    """Somebody who is logged in."""
    async with chromium() as browser, dashboard(shown.url, browser) as somebody:
        await somebody.log_in(KEY)
        yield somebody


async def ask(shown: Showcase, path: str) -> Any:
    """What the API answers to the same question."""
    url = f"{shown.url}/admin/{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"X-Admin-Key": KEY}) as answer:
        return await answer.json()


async def state(shown: Showcase, task_id: str, client_id: str) -> str:
    return str((await ask(shown, f"tasks/{task_id}?client_id={client_id}"))["state"])


def dialog_button(page: Page, name: str) -> Any:
    return page.get_by_role("dialog").get_by_role("button", name=name, exact=True)


async def test_ten_seconds_from_opening_the_page(shown: Showcase, visitor: Dashboard) -> None:
    """The first page has, without a click, which client is refused most, the oldest waiting task and what holds it, and
    what failed with which status: the numbers of the API. A second look keeps the focus where it is."""
    page = await visitor.open("overview")
    told = await ask(shown, "overview")
    refused, waits, failed = (page.locator(".answer").nth(place) for place in range(3))
    most, oldest, status = told["refused_most"][0], told["oldest_waiting"], told["failures"]["by_status"][0]
    await expect(refused).to_contain_text(f"{most['client_id']} {most['refused']} requests refused")
    await expect(waits).to_contain_text(f"concurrency: {oldest['message']}")
    await expect(waits.get_by_role("link", name=oldest["task_id"])).to_be_visible()
    await expect(failed).to_contain_text(f"{told['last_hour']['failed']} calls failed, most with {status['status']}")
    await expect(failed).to_contain_text(f"Most of {told['failed_most'][0]['client_id']}")
    link = refused.get_by_role("link", name="acme-billing").first
    await link.focus()
    told_at = await page.locator(".heading time").get_attribute("datetime")
    await expect(page.locator(".heading time")).not_to_have_attribute("datetime", str(told_at))
    await expect(link).to_be_focused()
    chart = page.get_by_role("group", name="Requests a minute")
    await chart.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(chart.locator("[aria-live]")).to_contain_text("admitted")
    await waits.get_by_role("link", name=oldest["task_id"]).click()
    await expect(page.locator(".why")).to_contain_text(oldest["message"])
    await expect(page.locator(".why").get_by_role("link", name=shown.tasks["running"])).to_be_visible()


async def test_one_task_is_run_cancelled_and_replayed(shown: Showcase, visitor: Dashboard) -> None:
    """A retry is due at once when it is told to run, what waits is cancelled after a question, a dead letter is queued
    again; each attempt shows its answer as text, whatever markup the target put into it."""
    tasks = shown.tasks
    page = await visitor.open(f"tasks/{tasks['retrying']}?client_id=globex-orders")
    await expect(page.locator("article")).to_have_count(1)
    await expect(page.locator("article")).to_contain_text("<img src=x onerror=alert(1)>")
    await expect(page.locator("main img")).to_have_count(0)
    await page.get_by_role("button", name="Run now").click()
    await expect(page.locator("article")).to_have_count(2)
    await visitor.open(f"tasks/{tasks['queued']}?client_id=acme-billing")
    await page.get_by_role("button", name="Cancel…").click()
    await dialog_button(page, "Cancel").click()
    assert await state(shown, tasks["queued"], "acme-billing") == "queued"
    await page.get_by_role("button", name="Cancel…").click()
    await dialog_button(page, "Cancel the task").click()
    await expect(page.locator(".heading .badge", has_text="cancelled")).to_be_visible()
    await visitor.open(f"tasks/{tasks['dead']}?client_id=globex-orders")
    await page.get_by_role("button", name="Replay").click()
    await expect(page.locator("#toasts")).to_contain_text("It is queued again.")
    await until(lambda: attempted(shown, tasks["dead"], 2))


async def attempted(shown: Showcase, task_id: str, times: int) -> bool:
    task = await ask(shown, f"tasks/{task_id}?client_id=globex-orders")
    return bool(task["attempts"] >= times or len(task["history"]) >= times)


async def test_many_tasks_are_counted_before_they_are_changed(shown: Showcase, visitor: Dashboard) -> None:
    """Filters narrow the list; what is to be done to all that match is counted first and changes nothing until it is
    started; then the job says how many it changed, and the list is empty."""
    page = await visitor.open("tasks?client_id=acme-billing&state=queued")
    queued = len((await ask(shown, "tasks?client_id=acme-billing&state=queued"))["tasks"])
    await expect(page.locator("tbody tr")).to_have_count(queued)
    await page.get_by_label("Label").fill("invoice-2042")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.get_by_label("Label").fill("")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(queued)
    await page.get_by_label("What to do to all that match").select_option("cancel")
    await page.get_by_role("button", name="Count…").click()
    await expect(page.locator(".why")).to_contain_text(f"{queued} tasks would be cancelled. Nothing is changed yet.")
    assert await state(shown, shown.tasks["queued"], "acme-billing") == "queued"
    await page.get_by_role("button", name="Start…").click()
    await dialog_button(page, "Start").click()
    await expect(page.locator(".why")).to_contain_text(f"{queued} tasks cancelled.")
    assert await visitor.complaints() == []
    assert await state(shown, shown.tasks["queued"], "acme-billing") == "cancelled"
    await visitor.open("jobs")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.locator("tbody tr")).to_contain_text("client id acme-billing, state queued")
    await visitor.open("tasks?client_id=acme-billing&state=queued")
    await expect(page.get_by_text("No task matches")).to_be_visible()


async def test_dead_letters_are_replayed_and_purged(shown: Showcase, visitor: Dashboard) -> None:
    """One by one, or all that match, of one client at once; what can't be undone has to be typed."""
    page = await visitor.open("dead?client_id=globex-orders")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(4)
    await page.get_by_role("button", name=f"Purge {shown.tasks['dead']}").click()
    await dialog_button(page, "Remove").click()
    await expect(rows).to_have_count(3)
    await page.get_by_label("Queue").fill("critical")
    await page.keyboard.press("Enter")
    await expect(rows).to_have_count(3)
    await page.get_by_role("button", name="Purge all that match…").click()
    await expect(dialog_button(page, "Purge")).to_be_disabled()
    await page.get_by_role("dialog").get_by_role("textbox").fill("globex-orders")
    await dialog_button(page, "Purge").click()
    await expect(page.get_by_text("No dead letter matches")).to_be_visible()
    await visitor.open("audit?action=dead")
    await expect(page.locator("tbody tr")).to_have_count(2)


async def test_a_dead_letter_says_why_and_whom_it_called(shown: Showcase, visitor: Dashboard) -> None:
    """Its target in one line, and nothing of it beyond the page; a reason that the last answer tells already is
    not told again, another one is."""
    expired = await enqueued_and_expired(shown)
    shown.held.set()
    await until(lambda: is_in("dead", shown, expired, "acme-billing"), 60)
    page = await visitor.open("dead")
    row = page.get_by_role("row", name=shown.tasks["dead"])
    await expect(row).to_contain_text("410")
    await expect(row).not_to_contain_text("http 410")
    await expect(page.get_by_role("row", name=expired)).to_contain_text("expired")
    table = page.get_by_role("region", name="Tasks")
    for width in (WIDE[0], 1024):
        await page.set_viewport_size({"width": width, "height": WIDE[1]})
        assert await table.evaluate("box => box.scrollWidth <= box.clientWidth"), width
    target = row.get_by_text("/orders/gone")
    assert await target.evaluate("box => box.getClientRects().length === 1 && box.offsetHeight < 30")


async def test_all_dead_letters_are_replayed_by_a_job(shown: Showcase, visitor: Dashboard) -> None:
    """Without a client it is a job, whose page opens; then one by one."""
    page = await visitor.open("dead")
    await page.get_by_role("button", name=f"Replay {shown.tasks['dead']}").click()
    await expect(page.locator("#toasts")).to_contain_text("It is queued again.")
    await visitor.open("dead?queue=critical")
    await page.get_by_role("button", name="Replay all that match…").click()
    await dialog_button(page, "Replay").click()
    await expect(page.locator(".why")).to_contain_text("3 tasks queued again.")


async def test_a_queue_is_paused_resumed_and_purged(shown: Showcase, visitor: Dashboard) -> None:
    """By its row among the client's queues, which then shows how it stands."""
    page = await visitor.open("clients/umbrella-sync")
    row = page.get_by_role("region", name="Queues of this client").get_by_role("row", name="bulk")
    await expect(row).to_contain_text("paused")
    await row.get_by_role("button", name="Resume bulk").click()
    await expect(row).to_contain_text("runs")
    await until(lambda: is_in("succeeded", shown, shown.tasks["paused"]))
    await row.get_by_role("button", name="Pause bulk").click()
    await expect(row).to_contain_text("paused")
    await page.get_by_role("button", name="Purge default").click()
    await expect(dialog_button(page, "Cancel them all")).to_be_disabled()
    await page.get_by_role("dialog").get_by_role("textbox").fill("default")
    await dialog_button(page, "Cancel them all").click()
    await expect(page.locator("#toasts")).to_contain_text("1 task cancelled.")
    assert await is_in("cancelled", shown, shown.tasks["scheduled"])


async def enqueued_and_expired(shown: Showcase) -> str:
    """A task behind the calls that are held, whose expiry is over. It has to be ahead when the request is read, which a
    busy machine does late: then it is refused, and is asked for again with more time."""
    seconds = 0.2
    async with aiohttp.ClientSession(shown.url) as session:
        while True:
            end = datetime.now(UTC) + timedelta(seconds=seconds)
            body = {
                "client_id": "acme-billing",
                "expires_at": end.isoformat(),
                "task": {"url": "http://localhost:1/late"},
            }
            async with session.post("/v1/enqueue", json=body) as answer:
                told = await answer.json()
            if answer.status == 201:
                break
            assert (answer.status, seconds < 60) == (400, True), told
            seconds *= 2
    await until(lambda: datetime.now(UTC) > end, seconds + 1)
    return str(told["task_id"])


async def is_in(wanted: str, shown: Showcase, task_id: str, client_id: str = "umbrella-sync") -> bool:
    return await state(shown, task_id, client_id) == wanted
