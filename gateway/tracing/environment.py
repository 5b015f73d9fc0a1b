"""Whether and where traces are exported, by the standard `OTEL_*` variables. They are often set for a whole cluster, so
one that can't be followed is told and keeps nothing from starting. The SDK reads the rest of them (samplers, resource
attributes, queue sizes, headers, certificates) by itself."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NamedTuple
from urllib.parse import urlsplit

_INSTALL = {"otlp_proto_grpc": "pip install opentelemetry-exporter-otlp-proto-grpc"}
_INSTALL_MOST = "pip install 'task-dispatch-gateway[otel]'"
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_EXPORTERS = ("otlp", "console", "none")


class Exporting(NamedTuple):
    """``exporter`` is the entry point that makes it, None where nothing is exported; ``warnings`` are what can't be
    followed."""

    exporter: str | None
    warnings: tuple[str, ...] = ()


def exporting(env: Mapping[str, str]) -> Exporting:
    """What the environment asks for, as far as it can be had.

    >>> exporting({})
    Exporting(exporter=None, warnings=())
    >>> exporting({"OTEL_TRACES_EXPORTER": "jaeger"}).warnings
    ("OTEL_TRACES_EXPORTER: 'jaeger' is not allowed, so nothing is traced; allowed: otlp, console, none",)
    """
    kind = _chosen(env, "OTEL_TRACES_EXPORTER").lower()
    endpoint = _first(env, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if _chosen(env, "OTEL_SDK_DISABLED").lower() == "true" or kind == "none" or not (kind or endpoint):
        return Exporting(None)
    if kind and kind not in _EXPORTERS:
        return _refused("OTEL_TRACES_EXPORTER", kind, ", ".join(_EXPORTERS))
    if kind == "console":
        return _installed("console", "OTEL_TRACES_EXPORTER")
    name = _first(env, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = _chosen(env, name).lower() or "http/protobuf"
    if protocol not in _PROTOCOLS:
        return _refused(name, protocol, ", ".join(_PROTOCOLS))
    if endpoint and protocol == "http/protobuf" and not _is_url(_chosen(env, endpoint)):
        # Not shown: it may hold a password.
        return _refused(endpoint, None, "an address such as http://collector:4318")
    return _installed(_PROTOCOLS[protocol], endpoint or "OTEL_TRACES_EXPORTER")


def _first(env: Mapping[str, str], *names: str) -> str:
    """The name of the first that is set, "" where none is."""
    return next((name for name in names if _chosen(env, name)), "")


def _chosen(env: Mapping[str, str], name: str) -> str:
    return env.get(name, "").strip()


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _refused(name: str, text: str | None, allowed: str) -> Exporting:
    shown = "it" if text is None else repr(text)
    return Exporting(None, (f"{name}: {shown} is not allowed, so nothing is traced; allowed: {allowed}",))


def _installed(exporter: str, name: str) -> Exporting:
    if not list(entry_points(group="opentelemetry_traces_exporter", name=exporter)):
        command = _INSTALL.get(exporter, _INSTALL_MOST)
        return Exporting(None, (f"{name}: no exporter {exporter} is installed, so nothing is traced; type: {command}",))
    return Exporting(exporter)
