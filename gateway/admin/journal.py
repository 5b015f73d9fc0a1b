"""Notes what operators change, in the log and in the audit log; `GET /admin/audit` shows the latter."""

import re
from typing import Any

import structlog
from aiohttp import web

from gateway.errors import InvalidBody, StoreUnavailable
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.answers import json_answer, rfc3339
from gateway.middleware.reading import page_limit, query
from gateway.store.journal import Change, ChangeFilter

log = structlog.get_logger()

PAGE = 50
PAGE_MAX = 500
_FILTERS = ("client_id", "action", "key_name")
_KNOWN = ("limit", "cursor", *_FILTERS)
_ID = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)  # one more digit, and Redis refuses some


async def note(
    request: web.Request,
    action: str,
    client_id: str | None,
    *,
    tier: str | None = None,
    queue: str | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    tasks: int | None = None,
) -> None:
    """The change has been made: it is not undone where Redis fails now, and then only the log has it."""
    extra = {name: value for name, value in (("queue", queue), ("tasks", tasks)) if value is not None}
    key = request[RequestKeys.ADMIN_KEY].name
    log.info("admin_action", action=action, client=client_id, tier=tier, key=key, **extra)
    change = Change(
        action=action,
        client_id=client_id,
        address=request[RequestKeys.ADDRESS],
        request_id=request[RequestKeys.REQUEST_ID],
        key=key,
        queue=queue,
        before=before,
        after=after,
        tasks=tasks,
    )
    try:
        await request.app[AppKeys.STORE].journal.note(change)
    except StoreUnavailable as problem:
        log.warning("audit_not_kept", action=action, client=client_id, error=problem.message)


async def show_audit(request: web.Request) -> web.StreamResponse:
    """200 with a page, newest first."""
    text, cursor, *filters = (query(request, name, _KNOWN) for name in _KNOWN)
    limit = page_limit(text, PAGE_MAX) or PAGE
    if cursor is not None and not _ID.fullmatch(cursor):
        msg = "cursor: must be the next_cursor of an earlier page"
        raise InvalidBody(msg, error="Invalid query")
    chosen = ChangeFilter(*filters)
    entries, cursor = await request.app[AppKeys.STORE].journal.page(before=cursor, limit=limit, chosen=chosen)
    body = [
        {
            "id": entry.id,
            "at": rfc3339(entry.at),
            "action": entry.change.action,
            "client_id": entry.change.client_id,
            "queue": entry.change.queue,
            "address": entry.change.address,
            "key": entry.change.key,
            "request_id": entry.change.request_id,
            "before": entry.change.before,
            "after": entry.change.after,
            "tasks": entry.change.tasks,
        }
        for entry in entries
    ]
    return json_answer({"entries": body, "next_cursor": cursor})


ROUTES = (web.get("/audit", show_audit),)
