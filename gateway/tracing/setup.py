"""Opens and closes what makes and exports spans. OpenTelemetry is imported only once it is known to be wanted: who has
not asked for it pays neither time nor memory."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import structlog

from gateway import __version__
from gateway.tracing.environment import exporting

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from gateway.tracing.spans import Spans

log = structlog.get_logger()

SERVICE = "task-dispatch-gateway"
# For the last spans at a stop: with the drain it stays below Kubernetes's 30 s.
FLUSH_SECONDS = 2.0


@contextlib.asynccontextmanager
async def tracing(instance: str) -> AsyncIterator["Spans | None"]:
    """What makes spans while the context is open, None where none are wanted. ``instance`` names this process, as
    `/admin/replicas` does. The end exports what is left, for two seconds at most."""
    exporter = exporting(os.environ).exporter
    provider = None if exporter is None else _provider(exporter, instance)
    if provider is None:
        yield None
        return
    from gateway.tracing.spans import Spans  # noqa: PLC0415 - see above

    # The exporter warns of each try; what was given up is an error, every ten seconds while the collector is away.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    log.info("tracing", exporter=exporter)
    try:
        yield Spans(provider)
    finally:
        await _within(FLUSH_SECONDS, provider.shutdown)


def _provider(exporter: str, instance: str) -> "TracerProvider | None":
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above

    try:
        [found] = entry_points(group="opentelemetry_traces_exporter", name=exporter)
        told = Resource.create({"service.version": __version__, "service.instance.id": instance})
        if str(told.attributes["service.name"]).startswith("unknown_service"):  # else OTEL_SERVICE_NAME says it
            told = told.merge(Resource({"service.name": SERVICE}))
        provider = TracerProvider(resource=told, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(found.load()()))
    except (ImportError, ValueError, OSError) as problem:  # a number, a certificate
        log.error("tracing_unavailable", message=f"nothing is traced; look at the OTEL_… variables: {problem}")
        return None
    return provider


async def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do the work in a thread that keeps nobody from leaving: the exporter waits for its collector as long as it
    likes."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        work()
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="tracing-flush", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        log.warning("traces_lost", message=f"the last spans did not reach the collector within {seconds:g} s")
