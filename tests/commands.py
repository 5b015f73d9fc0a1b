"""The command line as a user runs it, in a process of its own."""

import asyncio
import os
import sys
from typing import NamedTuple


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


async def run(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Ran:
    """Run `python -m gateway` with these arguments and nothing of this process's settings."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *arguments,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | (env or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ran(process.returncode, out.decode(), err.decode())
