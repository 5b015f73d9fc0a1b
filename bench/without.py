"""The gateway without one of its parts, and without what it does every few seconds whatever comes in (see `periodic`),
so that what is left is what a task costs.

python -m bench.without nothing|recording|monitoring|security serve …
"""

import ast
import asyncio
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

NOTHING: Final = "nothing"
# Where clocks are read for the metrics alone; elsewhere a duration is part of a task's record.
_TIMED_FOR_METRICS: Final = {"gateway.api.express", "gateway.middleware.access", "gateway.store.scripts"}
_CLOCKS: Final = {"monotonic", "perf_counter"}

Change = tuple[Any, str, Any]  # an attribute, and what stands there instead


class Unrecorded(ast.NodeTransformer):
    """A module without the statements that call the metrics, what they are given included, and without the clocks that
    are read for them. ``told``: also without the id of a request and the question whether to log at debug."""

    def __init__(self, *, timed: bool, told: bool) -> None:
        self._timed = timed
        self._told = told

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """A call of the metrics for its own sake."""
        match node.value:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="metrics")) | ast.Subscript(value=ast.Attribute(attr="_timed"))
            ):
                return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A look at a clock, and a new id."""
        match node.func:
            case ast.Name(id=name) | ast.Attribute(attr=name) if self._timed and name in _CLOCKS:
                return ast.copy_location(ast.Constant(0.0), node)
            case ast.Name(id="chosen_id") if self._told:
                return ast.copy_location(ast.Constant("none"), node)
            case ast.Name(id="tells_debug") if self._told:
                return ast.copy_location(ast.Constant(value=False), node)
        return self.generic_visit(node)


def unrecorded(source: bytes, name: str, *, told: bool) -> ast.Module:
    """The module of that name.

    >>> ast.unparse(unrecorded(b"metrics.enqueued(client, queue)", "gateway.api.enqueue", told=False))
    'pass'
    """
    tree = Unrecorded(timed=name in _TIMED_FOR_METRICS, told=told).visit(ast.parse(source))
    whole: ast.Module = ast.fix_missing_locations(tree)
    return whole


class _Loader(SourceFileLoader):
    told = False

    def get_code(self, fullname: str) -> Any:
        """From the source, since the cache has it whole."""
        path = self.get_filename(fullname)
        return compile(unrecorded(self.get_data(path), fullname, told=self.told), path, "exec")


class _Told(_Loader):
    told = True


class _Finder(MetaPathFinder):
    def __init__(self, loader: type[SourceFileLoader]) -> None:
        self._loader = loader

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Only the gateway's own, and not the metrics themselves."""
        if not name.startswith("gateway.") or name.startswith("gateway.metrics"):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = self._loader(name, spec.origin)
        return spec


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _unchecked(method: str, target: Any, headers: Any, body: bytes | None, via: Any = None) -> Any:
    message = _module("dispatch.http.message")
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {len(body or b'')}\r\n\r\n")
    return message.Request("\r\n".join(lines).encode(), body, method == "HEAD")


def _module(name: str) -> Any:
    """Only now: what is imported before the finder is there is imported whole."""
    return importlib.import_module(f"gateway.{name}")


def unguarded() -> list[Change]:
    """Whoever asks is believed, what is asked for is called as it is, and nothing is looked at for being sealed."""
    sender, express = _module("dispatch.sender"), _module("api.express")
    payloads = _module("store.payload").Payloads
    made = sender.HttpSender.__init__

    def made_without(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **{**kwargs, "keys": None, "hosts": None})

    return [
        (sender.HttpSender, "__init__", made_without),
        (_module("dispatch.http.client"), "encode", _unchecked),
        (express, "shows_its_key", lambda *_, **__: True),
        (_module("middleware.guesses").Guesses, "concern", lambda *_: False),
        (_module("dispatch.egress").EgressGuard, "check_literal", _nothing),
        (payloads, "ready", lambda _, task: task),
        (payloads, "closed", lambda _, __, attempt: attempt),
    ]


def undisturbed() -> list[Change]:
    """Nothing is booked, shown or told every few seconds."""

    @asynccontextmanager
    async def no_context(*_: Any) -> Any:
        yield

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    class NoUpkeep:
        def __init__(self, *_: Any) -> None:
            self.due = _nothing

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *_: Any) -> None:
            return None

    app, waking = _module("app"), _module("dispatch.waking")
    return [
        (app, "counting", no_context),
        (app, "presence", no_context),
        (app, "keep_gauges", never),
        (app, "Upkeep", NoUpkeep),
        (waking, "POLL_SECONDS", 3600.0),
    ]


def _unrecording(loader: type[SourceFileLoader]) -> list[Change]:
    sys.meta_path.insert(0, _Finder(loader))
    return []


PARTS: Final[dict[str, Callable[[], list[Change]]]] = {
    NOTHING: list,
    "recording": lambda: _unrecording(_Loader),
    "monitoring": lambda: _unrecording(_Told),
    "security": unguarded,
}


def main(part: str) -> None:
    """The gateway's command line, without the part."""
    for owner, name, value in [*PARTS[part](), *undisturbed()]:
        if not hasattr(owner, name):
            raise AttributeError(f"{owner} has no {name} to take away")
        setattr(owner, name, value)
    _module("cli").main()


if __name__ == "__main__":
    main(sys.argv.pop(1))
