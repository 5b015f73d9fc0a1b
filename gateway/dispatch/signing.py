"""Signs a call, so that its receiver can tell that it comes from here, unchanged and lately.

Standard Webhooks, symmetric: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from gateway.dispatch.header_names import spellings

# A client that signs has its own taken off a task, so that nobody can put words in the gateway's mouth.
SIGNED_HEADERS: Final = spellings({"webhook-id", "webhook-timestamp", "webhook-signature"})


def signature_headers(task_id: str, seconds: int, body: bytes | None, keys: Iterable[bytes]) -> list[tuple[str, str]]:
    """``webhook-id`` is the task's, the same for each attempt; the time is Unix seconds; each key adds a signature."""
    signed = f"{task_id}.{seconds}.".encode() + (body or b"")
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return [
        ("webhook-id", task_id),
        ("webhook-timestamp", str(seconds)),
        ("webhook-signature", " ".join(f"v1,{signature}" for signature in signatures)),
    ]
