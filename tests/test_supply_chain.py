"""What the gateway is built from, and how little it needs to run: known vulnerabilities, the bill of materials, the
image, a root that is read-only."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from as_user import BIN, ROOT, START_DEADLINE, Background, fetch, free_port, plain_environment, wait_for
from test_repository import locked, requirements

judge = runpy.run_path(str(ROOT / "deploy/audit.py"))["judge"]
CLEAN: dict[str, Any] = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
SKIPPED = {"name": "orjson", "skip_reason": "Dependency not found"}
BAD: dict[str, Any] = {
    "name": "redis",
    "version": "8.1.0",
    "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["8.1.1"], "aliases": [], "description": "bad"}],
}


def judged(*packages: dict[str, Any]) -> tuple[int, str]:
    code, told = judge(0, json.dumps({"dependencies": packages, "fixes": []}), "")
    return code, "\n".join(told)


def test_a_known_vulnerability_fails_the_check() -> None:
    """A locked package with an advisory ends the audit with 1, and is named with what mends it."""
    code, told = judged(CLEAN, BAD)
    assert code == 1
    assert "redis 8.1.0: PYSEC-2026-1" in told
    assert "8.1.1" in told


def test_what_was_not_audited_is_said() -> None:
    """Without advisories, for some packages or all of them, the audit passes, and never calls that clean."""
    assert judged(CLEAN) == (0, "1 locked packages audited, 0 known vulnerabilities")
    assert judged(CLEAN, SKIPPED)[0] == 0
    assert "NOT AUDITED, the package index has no advisories for them: orjson" in judged(CLEAN, SKIPPED)[1]
    assert judged(SKIPPED) == (
        0,
        "NOT AUDITED: this package index has no advisories for any of the 1 locked packages",
    )
    unreachable = judge(1, "", "Traceback\nrequests.exceptions.ConnectionError: no route")
    assert unreachable[0] == 0
    assert unreachable[1][0].startswith("NOT AUDITED: no advisories can be had from here")


def test_a_broken_audit_is_no_clean_one() -> None:
    """Where pip-audit fails for any other reason, so does the check."""
    assert judge(1, "", "ERROR: the lock has no hashes")[0] == 1
    assert judge(0, "", "")[0] == 1


def test_the_audit_runs_over_the_lock() -> None:
    """`make check` audits every package of the development lock, or says that it could not."""
    done = subprocess.run(
        [sys.executable, "deploy/audit.py"],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    counted = re.search(r"\b(\d+) locked packages", done.stdout)
    assert done.returncode in {0, 1}
    assert counted or "NOT AUDITED" in done.stdout, done.stdout + done.stderr
    if counted:  # markers leave out what is for other systems
        assert 0.8 * len(locked("requirements-dev.lock")) <= int(counted[1]) <= len(locked("requirements-dev.lock"))


def test_the_bill_of_materials_lists_what_the_gateway_runs_on(tmp_path: Path) -> None:
    """`make sbom` writes CycloneDX with every package of the runtime lock, its version and its hashes."""
    recipe = (ROOT / "Makefile").read_text().split("\nsbom:", 1)[1].split("\n\n", 1)[0]
    command = re.sub(r"\s*\\\n\s*", " ", recipe).splitlines()[-1].strip()
    output = tmp_path / "sbom.json"
    words = command.replace("$(BIN)", str(BIN)).replace("build/sbom.json", str(output)).split()
    subprocess.run(words, cwd=ROOT, env=plain_environment(), capture_output=True, check=True)
    bom = json.loads(output.read_text())
    assert bom["bomFormat"] == "CycloneDX"
    assert bom["metadata"]["component"]["name"] == "task-dispatch-gateway"
    listed = {part["name"].lower().replace("_", "-"): part for part in bom["components"]}
    lock = locked("requirements.lock")
    assert {name: part["version"] for name, part in listed.items()} == {name: pin[0] for name, pin in lock.items()}
    assert {wanted.name.lower() for wanted in requirements("runtime")} <= set(listed)
    for name, part in listed.items():
        assert sum(len(each["hashes"]) for each in part["externalReferences"]) == lock[name][1], name


def test_image_needs_no_shell_to_run() -> None:
    """The image starts and checks itself without a shell, writes no bytecode, and its base is pinned to a release."""
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)
    assert re.search(r'^ENTRYPOINT \["', text, re.MULTILINE)
    assert re.search(r'HEALTHCHECK .*\\\n +CMD \["python", "-c", ', text)
    assert "PYTHONDONTWRITEBYTECODE=1" in text
    last = text.split("\nFROM ")[-1]
    assert last.index("\nRUN ") < last.index("\nUSER ")  # nothing is run as the image's user at build time


def test_compose_gives_no_rights_away() -> None:
    """No service may gain rights; the gateway's and Valkey's roots are read-only."""
    services = yaml.safe_load((ROOT / "deploy/docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service
        assert "/var/run/docker.sock" not in str(service.get("volumes"))
    assert services["gateway"]["read_only"] is services["valkey"]["read_only"] is True
    assert services["gateway"]["tmpfs"] == ["/tmp"]


# A mount namespace of its own, in which everything is read-only but what the image may write to; then, as Docker does
# it with cap_drop and no-new-privileges, no capability and no way to one.
_CONFINED = """
set -e
mount --make-rprivate /
grep -v ' /proc\\| /sys\\| /dev' /proc/self/mounts | while read -r _ at _; do
    mount -o remount,bind,ro "$at" 2>/dev/null || :
done
mount --bind "$1" "$1"
mount -o remount,bind,rw "$1"
shift
exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs "$@"
"""


@pytest.fixture
def confined(tmp_path: Path) -> list[str]:
    """The beginning of a command line that confines the rest of it; only the folder ``data`` may be written to."""
    if os.geteuid() or not (shutil.which("unshare") and shutil.which("setpriv")):
        pytest.skip("needs root, unshare and setpriv (util-linux) to make a root that is read-only")
    data = tmp_path / "data"
    data.mkdir()
    begin = ["unshare", "--mount", "sh", "-c", _CONFINED, "sh", str(data)]
    probe = f"! touch {ROOT}/x && ! touch {tmp_path}/x && touch {data}/x && grep -q 'CapEff:.*0000$' /proc/self/status"
    if subprocess.run([*begin, "sh", "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be had here")
    return begin


def test_the_gateway_runs_on_a_read_only_root(confined: list[str], tmp_path: Path) -> None:
    """Without capabilities, on a root on which it can write to its data folder alone, the gateway starts with its own
    Valkey, stores a task, passes the image's health check, and stops in order."""
    port = free_port()
    env = plain_environment(
        PORT=str(port), GATEWAY_DATA_DIR=str(tmp_path / "data"), TMPDIR=str(tmp_path), PYTHONDONTWRITEBYTECODE="1"
    )
    gateway = Background([*confined, sys.executable, "-m", "gateway", "serve"], tmp_path / "gateway.log", env)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: gateway.ended or fetch(f"{url}/readyz")[0] == 200, "ready", START_DEADLINE)
        assert not gateway.ended, gateway.text()
        body = json.dumps({"client_id": "confined", "task": {"url": "http://service.example/"}, "delay": 60}).encode()
        answer = fetch(f"{url}/v1/enqueue", method="POST", body=body, headers={"Content-Type": "application/json"})
        assert answer[0] == 201, answer
        check = re.search(r'CMD (\["python".*\])$', (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert check
        command = [*confined, sys.executable, *json.loads(check[1])[1:]]
        subprocess.run(command, env=env, check=True, capture_output=True)
    finally:
        gateway.stop(signal.SIGTERM)
    assert '"event":"stopped"' in gateway.text()
    assert "Read-only" not in gateway.text()
