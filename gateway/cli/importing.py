"""The files `gateway clients import` takes, as bodies for `/admin/clients/set`: JSON, CSV with a header, or
lines of `id:tier`. Sending them is `gateway.cli.clients`."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.cli.output import Misused
from gateway.parsing import boolean

COLUMNS = ("client_id", "tier", "max_concurrent", "requests_per_min", "enabled", "allowed_queues", "allowed_hosts")


class Entry(NamedTuple):
    """One client to set. ``place`` is where it stands ("line 3"); ``problem``: why it can't be sent."""

    place: str
    body: Any
    problem: str | None = None


def read(content: bytes) -> list[Entry]:
    """The entries of a file, in its order; raises `Misused` where the whole file is no list of clients."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Misused("the file is not UTF-8") from None
    start = text.lstrip()
    if start.startswith(("[", "{")):
        return _from_json(text)
    header = start.splitlines()[0] if start else ""
    if "client_id" in [cell.strip().lower() for cell in header.split(",")]:
        return list(_from_csv(text))
    if "," in header and ":" not in header:
        msg = f"a CSV file starts with a header that has the column client_id (known: {', '.join(COLUMNS)})"
        raise Misused(msg)
    return list(_from_lines(text))


def _from_json(text: str) -> list[Entry]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as problem:
        msg = f"the file is not JSON: {problem}"
        raise Misused(msg) from None
    clients = data.get("clients") if isinstance(data, dict) else data
    if not isinstance(clients, list):
        raise Misused('a JSON file is a list of clients, or {"clients": [...]}')
    return [
        Entry(f"entry {number}", client, None if isinstance(client, dict) else "not a JSON object")
        for number, client in enumerate(clients, 1)
    ]


def _from_csv(text: str) -> Iterator[Entry]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    columns: list[str] = []
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not columns:
                columns = _header(cells)
            elif len(cells) > len(columns):
                yield Entry(place, None, f"{len(cells)} cells, the header has {len(columns)}")
            else:
                yield _from_row(place, dict(zip(columns, cells, strict=False)))
    except csv.Error as problem:
        yield Entry(f"line {reader.line_num}", None, f"not CSV: {problem}")


def _header(cells: list[str]) -> list[str]:
    columns = [cell.lower() for cell in cells]
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or len(set(columns)) < len(columns):
        wrong = f"unknown column {unknown[0]!r}" if unknown else "a column twice"
        msg = f"the CSV header has {wrong}; known: {', '.join(COLUMNS)}"
        raise Misused(msg)
    return columns


def _from_row(place: str, cells: dict[str, str]) -> Entry:
    """An empty cell is a field left out: it keeps its value."""
    given = {column: cell for column, cell in cells.items() if cell}
    body: dict[str, Any] = {name: given[name] for name in ("client_id", "tier") if name in given}
    limits = [given.get("max_concurrent"), given.get("requests_per_min")]
    try:
        if any(limits):
            body["rate_limit"] = {
                "max_concurrent": _number("max_concurrent", limits[0]),
                "requests_per_min": _number("requests_per_min", limits[1]),
            }
        if "enabled" in given:
            body["enabled"] = _truth(given["enabled"])
    except ValueError as problem:
        return Entry(place, None, str(problem))
    if "allowed_queues" in given:
        body["allowed_queues"] = given["allowed_queues"].replace(";", " ").replace(",", " ").split()
    if "allowed_hosts" in given:
        body["allowed_hosts"] = given["allowed_hosts"].replace(";", " ").replace(",", " ").split()
    return Entry(place, body)


def _number(column: str, cell: str | None) -> int:
    if cell is None or not cell.isascii() or not cell.isdigit() or len(cell) > 18:
        problem = f"{column}: a whole number is needed, max_concurrent and requests_per_min together"
        raise ValueError(problem)
    return int(cell)


def _truth(cell: str) -> bool:
    try:
        return boolean(cell)
    except ValueError:
        problem = f"enabled: {cell!r} is neither true nor false"
        raise ValueError(problem) from None


def _from_lines(text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        client_id, _colon, tier = (part.strip() for part in bare.partition(":"))
        if client_id and tier:
            yield Entry(f"line {number}", {"client_id": client_id, "tier": tier})
        else:
            yield Entry(f"line {number}", None, f"{bare!r} is not id:tier, such as my-service:premium")
