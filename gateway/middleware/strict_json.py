"""JSON that is exactly what the schema says: decode errors as `InvalidBody` that name the field, and the search for
duplicate keys. Knows no schema itself; reading the bytes off the wire is in `gateway.middleware.reading`."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from gateway.errors import InvalidBody, nearest

T = TypeVar("T")

_PLACE = re.compile(r"(?P<text>.*?)(?: - at `(?P<path>.*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_INDEX = re.compile(r"\[\d+\]")
_KINDS = re.compile(r"`(\w+)( \| null)?`")
_JSON_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
    "datetime": "an RFC 3339 time such as 2024-01-15T10:30:00Z",
}


# A tier's or a queue's name; what `explain` says of one that does not match.
NAME_PATTERN = r"\A[A-Za-z0-9_-]{1,64}\Z"
_NAME_WORDS = "must be 1 to 64 of the characters A-Z a-z 0-9 _ -"


class _Anything(msgspec.Struct):
    """Decoding into this checks the syntax of a whole object and keeps nothing."""


_ANYTHING: msgspec.json.Decoder[_Anything] = msgspec.json.Decoder(_Anything)


def check_syntax(raw: bytes) -> bool:
    """Raise `InvalidBody` unless ``raw`` is JSON in UTF-8; answers whether it is an object.

    >>> check_syntax(b'{"a": 1}'), check_syntax(b"[]")
    (True, False)
    """
    try:
        raw.decode("utf-8")
        _ANYTHING.decode(raw)
    except msgspec.ValidationError:
        return _is_other_json(raw)
    except (ValueError, RecursionError) as problem:
        raise malformed(problem, raw) from None
    return True


def _is_other_json(raw: bytes) -> bool:
    """For what is no object: valid JSON of another kind (False), or not JSON at all (raises)."""
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (ValueError, RecursionError) as problem:
        raise malformed(problem, raw) from None
    return False


def malformed(problem: Exception, raw: bytes) -> InvalidBody:
    """What to answer to ``raw``, bytes that are not JSON."""
    if isinstance(problem, RecursionError):
        return InvalidBody("$: nested too deeply")
    if isinstance(problem, UnicodeError):
        return InvalidBody("$: the body must be JSON in UTF-8; it holds bytes that are not UTF-8")
    detail = str(problem)
    if "truncated" in detail and not raw.strip():
        return InvalidBody("$: the body is empty; send a JSON object")
    if "truncated" in detail:
        detail += " (it ends too early, or holds half of a surrogate pair)"
    return InvalidBody(f"$: the body must be JSON: {detail}")


def explain(problem: msgspec.ValidationError, fields: Mapping[str, Iterable[str]]) -> InvalidBody:
    """The answer to JSON of the wrong shape, naming the field by its path.

    ``fields`` are the known names of each object, by its path with indexes left out (`$.tasks[].task`).
    """
    match = _PLACE.fullmatch(str(problem))
    text, path = (match["text"], match["path"] or "$") if match else (str(problem), "$")
    field = _FIELD.fullmatch(text)
    if field is None:
        return InvalidBody(f"{path}: {_worded(text)}")
    name = field["name"]
    if field["what"] == "missing required":
        return InvalidBody(f"{path}.{name} is required")
    known = list(fields.get(_INDEX.sub("[]", path), ()))
    return InvalidBody(f"{path}.{name[:64]}: unknown field; {nearest(name[:64], known)}")


def _worded(text: str) -> str:
    """msgspec's sentence with JSON's words for Python's types."""
    if "matching regex" in text:
        return _NAME_WORDS
    if text.startswith("Invalid RFC3339"):
        return f"expected {_JSON_WORDS['datetime']}"
    if "with a timezone component" in text:
        return "expected a time with its offset, such as 2024-01-15T10:30:00Z or …+02:00"
    return _KINDS.sub(lambda kind: _JSON_WORDS.get(kind[1], kind[1]), text[:1].lower() + text[1:])


def decode_strictly(raw: bytes, decoder: msgspec.json.Decoder[T], fields: Mapping[str, Iterable[str]]) -> T:
    """A body as ``decoder`` has it; raises `InvalidBody` that names the field. ``fields`` as `explain` takes them."""
    try:
        raw.decode("utf-8")
        body = decoder.decode(raw)
    except msgspec.ValidationError as problem:
        if not check_syntax(raw):
            msg = "$: the body must be a JSON object"
            raise InvalidBody(msg) from None
        raise explain(problem, fields) from None
    except (ValueError, RecursionError) as problem:
        raise malformed(problem, raw) from None
    refuse_duplicates(raw)
    return body


class _Pairs(list[tuple[str, Any]]):
    """An object as it stood there, duplicates included."""


def refuse_duplicates(raw: bytes, opaque: str = "body") -> None:
    """Raise `InvalidBody` where an object names a key twice; what ``opaque`` holds is the caller's own affair.

    Decoders keep the last of two and drop the first in silence. This reads the text a second time in Python, so
    it is for those bodies that a cheaper look could not clear.
    """
    try:
        whole = json.loads(
            raw, object_pairs_hook=_Pairs, parse_int=_nothing, parse_float=_nothing, parse_constant=_nothing
        )
    except RecursionError:
        msg = "$: nested too deeply"
        raise InvalidBody(msg) from None
    except ValueError as problem:
        raise malformed(problem, raw) from None
    _walk(whole, "$", opaque)


def _nothing(_: str) -> None:
    """Numbers play no part here, and a long one costs."""


def _walk(value: Any, path: str, opaque: str) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, inner in value:
            if name in seen:
                msg = f"{path}.{name[:64]}: given twice"
                raise InvalidBody(msg)
            seen.add(name)
            if name != opaque:
                _walk(inner, f"{path}.{name}", opaque)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _walk(inner, f"{path}[{index}]", opaque)
