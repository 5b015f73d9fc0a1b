"""How one setting's text becomes its value: numbers, words, lists, the tiers file. Every parser takes the
text and raises `ValueError` saying what is allowed. Which setting uses which is in `gateway.settings`."""

import base64
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.models import CLIENT_ID_PATTERN, QUEUE_PATTERN, RateLimit

_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_WEIGHT_LIMIT = 1000
IN_THE_CLEAR = "none"  # in the place of the first of TASK_ENCRYPTION_KEYS

SHIPPED_TIERS: Mapping[str, RateLimit] = {
    "free": RateLimit(1, 10),
    "basic": RateLimit(5, 100),
    "premium": RateLimit(20, 1000),
    "enterprise": RateLimit(50, 5000),
    "default": RateLimit(3, 50),
}


def boolean(text: str) -> bool:
    """true, yes, on, 1 or false, no, off, 0."""
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError("true or false") from None


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""
    allowed = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ValueError(allowed)
        number = int(text)
        if number < low or (high is not None and number > high):
            raise ValueError(allowed)
        return number

    return parse


def size(low: int, high: int) -> Callable[[str], int]:
    """A parser of sizes in bytes: a plain number, or one with a unit (`256MiB`)."""
    allowed = f"a size from {low} to {high} bytes, plain or with a unit (65536, 512KiB, 256MiB, 1GiB)"

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,18}) ?([a-z]*)", text.lower())
        if match is None or match[2] not in _SIZE_UNITS:
            raise ValueError(allowed)
        number = int(match[1]) * _SIZE_UNITS[match[2]]
        if not low <= number <= high:
            raise ValueError(allowed)
        return number

    return parse


def duration(low: float, high: float) -> Callable[[str], float]:
    """A parser of durations in seconds: a plain number, or one with a unit (`1.5`, `90s`, `24h`, `7d`)."""
    allowed = f"seconds from {low:g} to {high:.0f}, plain or with a unit (1.5, 500ms, 90s, 15m, 24h, 7d)"

    def parse(text: str) -> float:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([a-z]*)", text.lower())
        if match is None or match[2] not in _TIME_UNITS:
            raise ValueError(allowed)
        seconds = float(match[1]) * _TIME_UNITS[match[2]]
        if not low <= seconds <= high:
            raise ValueError(allowed)
        return seconds

    return parse


def whole_seconds(low: int, high: int) -> Callable[[str], int]:
    """Like `duration`, rounded up to whole seconds: what is kept is never kept for less than was asked."""
    parse = duration(low, high)
    return lambda text: math.ceil(parse(text))


def choice(*allowed: str, **aliases: str) -> Callable[[str], str]:
    """A parser of a closed set of words, in any case."""

    def parse(text: str) -> str:
        word = aliases.get(text.lower(), text.lower())
        if word not in allowed:
            raise ValueError(", ".join(allowed[:-1]) + f" or {allowed[-1]}")
        return word

    return parse


def secret(text: str) -> str:
    """Anything that can travel in a header."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("visible ASCII characters without spaces")
    return text


def password(text: str) -> str:
    """Any text."""
    return text


def encryption_keys(text: str) -> tuple[tuple[str, bytes], ...]:
    """`id:key` pairs, comma separated, each key the base64 of 32 bytes; the first may be `none`."""
    allowed = (
        "id:key pairs, comma separated, ids of 1 to 32 characters A-Z a-z 0-9 _ -, each once, each key the base64 of "
        "32 bytes (openssl rand -base64 32); instead of the first pair `none`, to store in the clear"
    )
    found: dict[str, bytes] = {}
    for at, entry in enumerate(entries(text)):
        name, colon, encoded = entry.partition(":")
        if entry == IN_THE_CLEAR and at == 0:
            found[name] = b""
            continue
        try:
            key = base64.b64decode(encoded.translate({45: "+", 95: "/"}), validate=True)
        except ValueError:
            raise ValueError(allowed) from None
        known = name in found or key in found.values() or name == IN_THE_CLEAR
        if not colon or known or len(key) != 32 or not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
            raise ValueError(allowed)
        found[name] = key
    return tuple(found.items())


def file(text: str) -> Path:
    """A file that can be read."""
    path = Path(text)
    try:
        path.open("rb").close()
    except OSError as problem:
        msg = f"a file; it can't be read ({problem.strerror})"
        raise ValueError(msg) from None
    return path


def client_id(text: str) -> str:
    """A client id, as the API takes it."""
    if not re.fullmatch(CLIENT_ID_PATTERN, text):
        raise ValueError("a client id: 3 to 64 of the characters A-Z a-z 0-9 _ -")
    return text


def key_prefix(text: str) -> str:
    """A prefix of Redis keys. Braces would move a key's hash tag, and with it the partition's atomicity."""
    if not re.fullmatch(r"[\x21-\x7e]{0,64}", text) or set(text) & set("{}"):
        raise ValueError("up to 64 visible ASCII characters without braces, such as 'gateway:'")
    return text


def queue_weights(text: str) -> dict[str, int]:
    """`critical=6,default=3,low=1`: a positive whole number for each queue."""
    allowed = f"queue=weight pairs, comma separated, weights from 1 to {_WEIGHT_LIMIT} (critical=6,default=3,low=1)"
    weights: dict[str, int] = {}
    for entry in entries(text):
        name, _, weight = (part.strip() for part in entry.partition("="))
        if name in weights or not re.fullmatch(QUEUE_PATTERN, name) or not re.fullmatch(r"[0-9]{1,4}", weight):
            raise ValueError(allowed)
        weights[name] = int(weight)
        if not 1 <= weights[name] <= _WEIGHT_LIMIT:
            raise ValueError(allowed)
    return weights


class Tiers(NamedTuple):
    """The limits of each tier, and the prices of those that have one."""

    limits: dict[str, RateLimit]
    prices: dict[str, float]


def tiers_file(text: str) -> Tiers:
    """The shipped tiers, and on top of them those of a TOML or JSON file (no file: the shipped ones).

    The file is `{name: {max_concurrent, requests_per_min, price}}`, perhaps under the key `tiers`; `price` is optional.
    """
    if not text:
        return Tiers(dict(SHIPPED_TIERS), {})
    form = "a TOML or JSON file of {name: {max_concurrent, requests_per_min, price}}, perhaps under 'tiers'"
    data = table_file(Path(text), form, wrapper="tiers")
    try:
        found = _tiers(data)
    except ValueError as problem:
        msg = f"{form}; {problem}"
        raise ValueError(msg) from None
    return Tiers({**SHIPPED_TIERS, **found.limits}, found.prices)


def table_file(path: Path, form: str, *, wrapper: str) -> Any:
    """What a TOML or JSON file holds, without the ``wrapper`` it may stand under; ``form`` begins each complaint."""
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as problem:
        msg = f"{form}; it can't be read ({problem.strerror})"
        raise ValueError(msg) from None
    except UnicodeDecodeError:
        msg = f"{form}; it is not UTF-8"
        raise ValueError(msg) from None
    try:
        data = _decode(content, path.suffix.lower())
    except (ValueError, RecursionError) as problem:
        msg = f"{form}; {problem}"
        raise ValueError(msg) from None
    # An entry may itself have the wrapper's name: only a table of tables is the wrapper.
    inner = data.get(wrapper) if isinstance(data, dict) else None
    wrapped = isinstance(inner, dict) and all(isinstance(value, dict) for value in inner.values())
    return inner if wrapped else data


class _Tier(msgspec.Struct, forbid_unknown_fields=True):
    max_concurrent: int
    requests_per_min: int
    price: float | None = None


def _tiers(data: Any) -> Tiers:
    if not isinstance(data, dict) or not data:
        raise ValueError("it has no tiers")
    tiers = Tiers({}, {})
    for name, value in data.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            msg = f"tier name {name!r}: 1 to 64 of A-Z a-z 0-9 _ -"
            raise ValueError(msg)
        try:
            tier = msgspec.convert(value, _Tier)
        except msgspec.ValidationError as problem:
            msg = f"tier {name!r}: {problem}"
            raise ValueError(msg) from None
        if min(tier.max_concurrent, tier.requests_per_min) < 1:
            msg = f"tier {name!r}: max_concurrent and requests_per_min are at least 1"
            raise ValueError(msg)
        tiers.limits[name] = RateLimit(tier.max_concurrent, tier.requests_per_min)
        if tier.price is not None:
            if not 0 <= tier.price < math.inf:
                msg = f"tier {name!r}: price is a number, 0 or more"
                raise ValueError(msg)
            tiers.prices[name] = tier.price
    return tiers


def _decode(content: str, suffix: str) -> Any:
    as_json = suffix == ".json" or (suffix != ".toml" and content.lstrip().startswith("{"))
    return json.loads(content) if as_json else tomllib.loads(content)


def entries(text: str) -> list[str]:
    """The entries of a comma separated list, blanks dropped."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]
