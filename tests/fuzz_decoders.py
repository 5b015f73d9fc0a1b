"""Coverage-guided fuzzing of what decodes a caller's bytes, by atheris: `make fuzz` at length, a test for some seconds.

Usage: python tests/fuzz_decoders.py CORPUS [libFuzzer's options]. Whatever comes, a decoder ends with a value or with
an `InvalidBody`, which is a 400; anything else ends the run, and the input is kept."""

import json
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway"], enable_loader_override=False):
    from gateway.admin.clients import _FIELDS, _SET
    from gateway.admin.jobs import _DECODER as JOB
    from gateway.admin.jobs import _FIELDS as JOB_FIELDS
    from gateway.admin.session import _FIELDS as LOGIN_FIELDS
    from gateway.admin.session import _LOGIN
    from gateway.admin.tiers import _DECODER as TIER
    from gateway.admin.tiers import _FIELDS as TIER_FIELDS
    from gateway.api.decoding import Decoding
    from gateway.api.task_rules import Rules
    from gateway.errors import InvalidBody
    from gateway.middleware.callers import caller_address
    from gateway.middleware.contracts import Given
    from gateway.middleware.session_cookie import unsign
    from gateway.middleware.strict_json import decode_strictly
    from gateway.settings import Settings
    from gateway.tracing.context import joined

NOW = 1_700_000_000.0
STRICT = ((_SET, _FIELDS), (JOB, JOB_FIELDS), (TIER, TIER_FIELDS), (_LOGIN, LOGIN_FIELDS))
SETTINGS = Settings.load({"UPSTREAM_URL": "http://127.0.0.1:9000", "TRUSTED_PROXIES": "10.0.0.0/8,::1"})
DECODING = Decoding(Rules(SETTINGS))
# What it begins with, one of each kind, and words that bodies are made of.
GOOD = {
    "e": {"client_id": "acme", "delay": 1.5, "rate_limit": {"max_concurrent": 1, "requests_per_min": 2}},
    "b": {"client_id": "acme", "tasks": [{"run_at": "2024-01-15T10:30:00Z", "task": {"url": "http://a/"}}]},
    "t": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01, 10.1.2.3, ::1",
    "\0": {"client_id": "acme", "tier": "free", "allowed_queues": ["a"], "enabled": True},
    "\1": {"action": "cancel", "filter": {"client_id": "acme"}, "dry_run": False},
    "\2": {"max_concurrent": 1, "requests_per_min": 2},
    "\3": {"key": "a-key"},
}
WORDS = (
    "client_id task tasks queue delay run_at expires_at rate_limit cost idempotency_key url headers body "
    "null true 1e999 -0.0 18446744073709551616 NaN [[[[ {} http://a/ 9999-12-31T23:59:59-23:59"
)


def one(data: bytes) -> None:
    """One input: its first byte says who is to decode the rest."""
    kind, raw = data[:1], data[1:]
    try:
        match kind:
            case b"e":
                told(DECODING.enqueue(raw, Given(None, NOW)).problem)
            case b"b":
                told(DECODING.batch(raw, Given(None, NOW)).problem)
            case b"t":
                text = raw.decode("latin-1")
                joined(text, text[::-1])
                unsign(text, lambda _: b"secret", NOW)
                caller_address("10.0.0.1", [text], SETTINGS.trusted_proxies)
            case _:
                decoder, fields = STRICT[ord(kind or b"\0") % len(STRICT)]
                decode_strictly(raw, decoder, fields)
    except InvalidBody as refused:
        told(refused)


def told(problem: Exception | None) -> None:
    """A refusal is a 400 in the caller's words."""
    if problem is None:
        return
    assert isinstance(problem, InvalidBody), problem
    assert problem.status == 400, problem.status
    assert problem.message.startswith("$"), problem.message


if __name__ == "__main__":
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, (first, body) in enumerate(GOOD.items()):
        (corpus / str(number)).write_bytes(first.encode() + json.dumps(body).encode())
    words = corpus.with_suffix(".words")
    words.write_text("".join(f'"{word}"\n' for word in WORDS.split()))
    atheris.Setup([*sys.argv, f"-dict={words}"], one)
    atheris.Fuzz()
