"""Which hosts the tasks of one client may call, where its `allowed_hosts` say so; on top of the rule for everybody."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.dispatch.hosts import LONGEST_NAME, Entry, IPAddress, literal_address, parse_entry, readings

_WILDCARD = re.compile(r"\*\.[^*]+")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Compiled entries; equal ones are one key of the connection pool."""

    entries: tuple[Entry, ...]

    def decides(self, host: str, port: int) -> bool | None:
        """Whether a URL's host (normal) and port are allowed; None where the address that the name turns out to have
        decides, since some network is.

        >>> rule = allowed_hosts(("api.example.com:443", "*.example.org", "10.1.0.0/16"))
        >>> rule.decides("api.example.com", 443), rule.decides("a.b.example.org", 80), rule.decides("10.2.0.1", 80)
        (True, True, False)
        >>> rule.decides("example.org", 80) is None
        True
        """
        address = literal_address(host)
        if address is not None:
            return self.reaches(address, port)
        if any(entry.names(host, port) for entry in self.entries):
            return True
        networks = any(entry.network is not None and entry.port in {None, port} for entry in self.entries)
        return None if networks else False

    def reaches(self, address: IPAddress, port: int) -> bool:
        """Whether networks of the rule hold this address, and what it would be translated to."""
        return all(
            any(entry.network is not None and entry.covers(view, port, "") for entry in self.entries)
            for view in readings(address)
        )


def decided(texts: tuple[str, ...], host: str, port: int) -> bool | None:
    """What the rule of these entries decides, remembered: a client has few hosts and calls them again and again."""
    return _decided(texts, host, port) if len(host) <= LONGEST_NAME else False


@lru_cache(maxsize=4096)
def _decided(texts: tuple[str, ...], host: str, port: int) -> bool | None:
    return allowed_hosts(texts).decides(host, port)


@lru_cache(maxsize=4096)
def allowed_hosts(texts: tuple[str, ...]) -> AllowedHosts:
    """What can't be read names nothing, and so allows nothing: the record may be another program's."""
    found = []
    for text in texts:
        try:
            found.append(parse_allowed(text))
        except ValueError:
            continue
    return AllowedHosts(tuple(found))


def parse_allowed(text: str) -> Entry:
    """An entry of `allowed_hosts`: a host name, `*.` and a name for all below it, an address or a network, each with a
    port or without. Raises ValueError that says so."""
    if _WILDCARD.fullmatch(text):
        below = parse_entry(text[2:], "allowed_hosts")
        if below.name is not None:
            return Entry(None, f"*.{below.name}", below.port)
    elif "*" not in text and text == text.strip():
        return parse_entry(text, "allowed_hosts")
    msg = (
        f"{text[:100]!r} is none of a name, *. and a name, an address or a network, each with a port or without"
        " (api.example.com, *.example.com:443, 10.1.0.0/16, [fd00::1]:8080)"
    )
    raise ValueError(msg)


def wrong_entry(texts: Sequence[str]) -> tuple[int, str] | None:
    """The first entry that is none, and why; None where all are."""
    for number, text in enumerate(texts):
        try:
            parse_allowed(text)
        except ValueError as problem:
            return number, str(problem).removeprefix("allowed_hosts: ")
    return None
