"""What may be shown of what may be secret: URLs and free text. Everything that leaves the process for somebody
other than the task's own client goes through here. Pure functions, but for `protect`, which takes the secrets that this
process knows by their values."""

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

HIDDEN: Final = "***"
LEFT_OUT: Final = "…"

_NAMES: Final = (
    r"(?:proxy-)?authorization|(?:set-)?cookie"
    r"|(?:[a-z0-9]+[-_])*(?:(?:api|admin|client|access|private|secret|encryption)[-_]?key|passwd|password|secret|token)"
)
_NAME: Final = re.compile(_NAMES, re.IGNORECASE)
# Matches with or without a query, so that a text of nothing but beginnings costs no more than one look.
_URL: Final = re.compile(r"(https?://[^\s?#\"'<>\\]*)([?#][^\s\"'<>\\]*)?")
_URL_START: Final = re.compile(r"^([a-zA-Z+.-]+://)[^/?#]*@")
_URL_END: Final = re.compile(r"[?#]")
_PATTERNS: Final = (
    (re.compile(r"://[^/?#\s\"'<>]*@"), f"://{HIDDEN}@"),
    (re.compile(r"\b(Bearer|bearer|Basic) +[A-Za-z0-9+/=._~-]{4,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(whsec|gwk)_[A-Za-z0-9+/=_-]+"), rf"\1_{HIDDEN}"),
    # As JSON (also within a JSON string, and in lists), as Python writes it, as a form and as a header line: a target
    # may give back what it was sent.
    (re.compile(rf"(?i)(\"(?:{_NAMES})\"\s*:\s*)\"(?:[^\"\\]|\\.)*\"?"), rf'\1"{HIDDEN}"'),
    (re.compile(rf"(?i)(\"(?:{_NAMES})\\*\"\s*:\s*\[)[^\]]*"), rf'\1"{HIDDEN}"'),
    (re.compile(rf"(?i)(\"(?:{_NAMES})\\+\"\s*:\s*\\+\")[^\"]*"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)('(?:{_NAMES})'\s*:\s*)'[^']*'?"), rf"\1'{HIDDEN}'"),
    (re.compile(rf"(?i)(?<![a-z0-9_-])((?:{_NAMES})=)[^\s&;,\"']+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)(?<![a-z0-9-])((?:(?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]*(?:key|token|secret)): *)[^\r\n]+"
        ),
        rf"\1{HIDDEN}",
    ),
)
# One of these is in whatever a pattern matches: most texts hold none, and cost a look.
_SIGNS: Final = ("=", ":", "earer ", "asic ", "whsec_", "gwk_")
_SHORTEST: Final = 6  # of a value known to be secret; a shorter one is part of too much else
_KEY_LENGTH: Final = 16  # of what counts as a key, and not as its name, in a list of `name:key`

_known: frozenset[str] = frozenset()
_known_pattern: re.Pattern[str] | None = None


def protect(values: Iterable[str]) -> None:
    """Hide these wherever `scrub` meets them from now on, also quoted for a URL; for the life of the process."""
    global _known, _known_pattern  # noqa: PLW0603 - what the process knows, like its log
    for value in values:
        if len(value) >= _SHORTEST:
            _known |= {value, quote(value, safe=""), quote_plus(value), unquote(value)}
    if _known:
        longest_first = sorted(_known, key=len, reverse=True)
        _known_pattern = re.compile("|".join(map(re.escape, longest_first)))


def secret_parts(text: str, *, whole: bool) -> set[str]:
    """What of a setting's text is secret: ``whole``, all of it and each key in a list of them; else the login of a URL,
    also as `Proxy-Authorization` carries it."""
    if whole:
        return {text, *(part for part in re.split(r"[,:\s]", text) if len(part) >= _KEY_LENGTH)} - {""}
    login = re.search(r"://([^/?#@]*)@", text)
    user, colon, password = (login[1] if login else "").partition(":")
    if not colon:
        return set()
    pair = f"{unquote(user)}:{unquote(password)}"
    return {password, base64.b64encode(pair.encode()).decode()}


def scrub(text: str) -> str:
    """The text without what is secret in it: what `protect` was given, logins and queries of URLs, credentials in the
    forms that headers and JSON have.

    >>> scrub("GET https://ann:s3cret@api.example/x?key=1 failed")
    'GET https://***@api.example/x?… failed'
    >>> scrub('{"authorization": "Bearer abcdef", "a": 1}')
    '{"authorization": "***", "a": 1}'
    """
    if _known_pattern is not None and any(value in text for value in _known):
        text = _known_pattern.sub(HIDDEN, text)
    if not any(sign in text for sign in _SIGNS):
        return text
    if "://" in text:
        text = _URL.sub(lambda url: url[1] + (url[2][0] + LEFT_OUT if url[2] else ""), text)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def scrub_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a log line or a trace: values whose name says that they are secret are hidden, others scrubbed."""
    return {
        name: HIDDEN if _names_secret(name) and value is not None else _scrubbed(value)
        for name, value in fields.items()
    }


@lru_cache(maxsize=1024)
def _names_secret(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _scrubbed(value: Any) -> Any:
    if value is None or isinstance(value, int | float | datetime):
        return value
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return scrub_fields(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed(each) for each in value]
    return scrub(str(value))


def shown_url(url: str) -> str:
    """A target's URL as operators see it: no login, and of a query or fragment only that there is one.

    >>> shown_url("https://ann:s3cret@api.example:8443/x?token=1")
    'https://***@api.example:8443/x?…'
    """
    rest = _URL_START.sub(rf"\1{HIDDEN}@", url)
    mark = _URL_END.search(rest)
    return rest if mark is None else rest[: mark.end()] + LEFT_OUT


def mask(text: str) -> str:
    """A setting's text with what may be a password in a URL replaced, for messages; also where the URL is malformed.

    >>> mask("redis://app:secret@cache:6379/0?db=1")
    'redis://***@cache:6379/0?db=***'
    """
    text = re.sub(r"([?&][^=&\s]*=)[^&\s]+", rf"\1{HIDDEN}", text)
    text = re.sub(r"(?i)(pass(?:word)?=)[^&\s]*", rf"\1{HIDDEN}", text)
    if "@" in text:
        return re.sub(r"^([a-zA-Z+]*:/+)?.*@", rf"\1{HIDDEN}@", text, flags=re.DOTALL)
    # Without an "@" what looks like a port and is none may be a password whose host was forgotten.
    return re.sub(r"(//[^\[\]/:]*):(?!\d*(?:[/?#]|$)).*", rf"\1:{HIDDEN}", text, flags=re.DOTALL)
