"""What is shown of secrets: nothing, in whatever form they come; and that everything else stays readable."""

import io
import json
import logging
import sys
import time
from collections.abc import Iterator

import pytest
import structlog

from gateway import log, redaction
from gateway.models import Task, TaskSpec
from gateway.redaction import mask, scrub, scrub_fields, shown_url
from gateway.settings import Settings
from gateway.store.records import claimed, entry_value

SECRET = "s3cr3t-canary"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is protected before a test, nor after it."""
    monkeypatch.setattr(redaction, "_known", frozenset())
    monkeypatch.setattr(redaction, "_known_pattern", None)
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "text",
    [
        f"http://ann:{SECRET}@host/x",
        f"redis://:{SECRET}@cache:6379/0 does not answer",
        f"GET https://host/x?token={SECRET}&a=1 failed",
        f"https://host/#{SECRET}",
        f"Authorization: Digest username={SECRET}",
        f"authorization: {SECRET}\r\n",
        f"Cookie: a=b; session={SECRET}",
        f"Set-Cookie: sid={SECRET}; HttpOnly",
        f"X-Api-Key: {SECRET}",
        f"X-Admin-Key:{SECRET}",
        f'{{"headers": {{"Authorization": "Custom {SECRET}"}}}}',
        f'{{"X-Api-Key" : "a\\"{SECRET}"}}',
        f'{{"client_secret": "{SECRET}", "n": 1}}',
        f'{{"Authorization": ["Custom {SECRET}"], "Cookie": ["a=1", "{SECRET}"]}}',
        json.dumps({"seen": json.dumps({"Cookie": f"a={SECRET}", "X-Api-Key": [SECRET]})}),
        repr({"Cookie": SECRET, "X-Auth-Token": SECRET}),
        f"user=ann&password={SECRET}&x=1",
        f"access_token={SECRET}",
        f"Bearer {SECRET}",
        f"Basic {SECRET}",
        f"whsec_{SECRET.replace('-', 'x')}",
        f"the key gwk_{SECRET} is none",
        f"gwk_{SECRET}",
    ],
)
def test_credentials_are_hidden_in_free_text(text: str) -> None:
    """What looks like a credential is hidden wherever free text may quote one."""
    assert "s3cr3t" not in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:9000/hello",
        "Redis wants a password: set REDIS_PASSWORD or REDIS_URL.",
        "ADMIN_API_KEY is not set: /admin is open to loopback and ADMIN_ALLOWED_IPS",
        "the header X-Admin-Key must be the gateway's ADMIN_API_KEY",
        '{"token_count": 5, "secret_id": "sec_12345678"}',
        "exceeded 50 requests per minute (current: 51)",
        "the basic tier, its bearer of the name",
    ],
)
def test_everything_else_stays_readable(text: str) -> None:
    """Sentences about secrets and harmless values are not touched."""
    assert scrub(text) == text


def test_known_secrets_are_hidden_in_every_quoting() -> None:
    """A secret of the settings is hidden by its value, plain or as a URL carries it, whatever stands around it."""
    redaction.protect(["p@ss w/rd+1", "abc"])
    for form in ("p@ss w/rd+1", "p%40ss%20w%2Frd%2B1", "p%40ss+w%2Frd%2B1"):
        assert scrub(f"x{form}y") == "x***y"
    assert scrub("abc") == "abc"  # too short to tell from other text


def test_settings_tell_their_secrets() -> None:
    """Keys, passwords and the logins of URLs are what a process protects, also as headers carry them."""
    settings = Settings.load(
        {
            "ADMIN_API_KEY": "admin-canary",
            "REDIS_URL": "redis://app:redis-canary@cache:6379",
            "OUTBOUND_PROXY": "http://ann:s%40crt-canary@proxy:3128",
            "UPSTREAM_URL": "http://service:9000",
        }
    )
    redaction.protect(settings.secrets)
    told = scrub("admin-canary redis-canary s%40crt-canary s@crt-canary YW5uOnNAY3J0LWNhbmFyeQ==")
    assert told == "*** *** *** *** ***"
    assert "canary" not in repr(settings)


def test_hostile_text_costs_little() -> None:
    """Text made of nothing but beginnings takes no longer than its length: a request can't stall the log."""
    texts = [
        "http://" * 1200,
        "x-" * 4000 + "k",
        "a-" * 4000,
        '"token"' * 1200,
        '"token": "' + "\\" * 8000,
        "://" * 2700,
        '"token":[' * 900,
        "'token':" * 900,
        '"token\\":\\' * 900,
    ]
    started = time.process_time()
    for text in texts:
        scrub(text)
    assert time.process_time() - started < 0.5


def test_urls_for_operators() -> None:
    """Host and path are shown; of login, query and fragment only that there is one."""
    assert shown_url("https://a.example/x/y") == "https://a.example/x/y"
    assert shown_url(f"https://a.example:1/x?k={SECRET}#f?g") == "https://a.example:1/x?…"
    assert shown_url(f"https://a.example/x#{SECRET}?x") == "https://a.example/x#…"
    assert shown_url(f"https://{SECRET}:{SECRET}@a.example/") == "https://***@a.example/"
    assert shown_url("https://a.example/me@home") == "https://a.example/me@home"


def test_mask_hides_queries_too() -> None:
    """A malformed setting is repeated without login and query values."""
    assert mask(f"http://a:{SECRET}@h/x") == "http://***@h/x"
    assert SECRET not in mask(f"http://service/?token={SECRET}&b={SECRET}")


def test_fields_are_judged_by_their_names() -> None:
    """A field called like a secret is hidden whatever it holds; the others, nested ones too, are scrubbed."""
    fields = {
        "headers": {"Authorization": [SECRET], "X-A": "1"},
        "api_key": 12345678,
        "key": "ADMIN_API_KEY",
        "urls": [f"http://a/?{SECRET}"],
        "error": ValueError(f"password={SECRET}"),
        "count": 3,
        "token": None,
    }
    shown = scrub_fields(fields)
    assert "s3cr3t" not in repr(shown)
    assert (shown["key"], shown["count"], shown["token"], shown["api_key"]) == ("ADMIN_API_KEY", 3, None, "***")


def test_what_goes_past_the_log_goes_through_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception that nobody caught, and a library's line that can't be put together, are lines of the log: Python
    would print both as they are."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    stream = io.StringIO()
    redaction.protect([SECRET])
    log.configure("info", "json", stream)
    problem = ValueError(f"{SECRET} is no port")
    sys.excepthook(ValueError, problem, None)
    record = logging.LogRecord("library", logging.WARNING, "", 1, "%d of %s", (SECRET, "b"), None)
    log._FromStdlib().emit(record)  # pytest's own handler would raise
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in told] == ["crashed", "log_record_malformed"]
    assert "ValueError: *** is no port" in told[0]["exception"]
    assert told[1]["logger"] == "library"
    assert SECRET not in stream.getvalue() + "".join(capsys.readouterr())


def test_what_carries_a_task_shows_nothing_of_it() -> None:
    """Printed by an exception, a library or a debugger, a task shows its kind and none of its values."""
    task = {"url": SECRET, "headers": {SECRET: SECRET}, "body": SECRET.encode(), "method": "POST", "queue": "q"}
    spec = TaskSpec(Task(**task), requests_per_min=1)  # type: ignore[arg-type]
    assert repr([spec, spec.task]) == "[<TaskSpec>, <Task>]"
    packed = entry_value("u" * 16, spec)[0]
    claim = claimed("acme", [b"q", b"1-0", 1, b"", packed], 1)
    assert claim.body == SECRET.encode()
    for each in (claim, claim.stored):
        assert SECRET not in f"{each!r} {each} {[each]}"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_log_line_holds_a_secret(form: str) -> None:
    """Neither an event's fields nor a traceback's text brings a secret into the log, in both formats."""
    stream = io.StringIO()
    redaction.protect([SECRET])
    log.configure("debug", form, stream)  # type: ignore[arg-type]
    logger = structlog.get_logger()
    logger.info("called", url=f"http://h/?{SECRET}", headers={"Cookie": "abc-secret"}, detail=f"<{SECRET}>")
    try:
        raise ValueError(f"could not parse {SECRET}")
    except ValueError:
        logger.exception("failed")
    written = stream.getvalue()
    assert SECRET not in written
    assert "abc-secret" not in written
    assert "could not parse ***" in written
    if form == "json":
        assert [json.loads(line)["event"] for line in written.splitlines()] == ["called", "failed"]
