"""Looks the locked packages up among the known vulnerabilities (pip-audit): `make check` runs it.

Ends with 1 where a package has one. The look-up needs the package index's own advisories, which a mirror may not have
and a machine may not reach: then it says plainly that nothing was audited, and ends with 0, so that the tests run there
too. pip-audit alone calls that "no known vulnerabilities". Arguments go on to pip-audit (`--ignore-vuln ID`)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

LOCK: Final = "requirements-dev.lock"  # holds the other locks' versions, too
SECONDS: Final = 180.0
_AWAY: Final = ("requests.exceptions.", "ConnectionError", "Could not connect", "VulnerabilityService", "timed out")


def judge(code: int, output: str, errors: str) -> tuple[int, list[str]]:
    """The exit code and what to print of a run of pip-audit with `-f json`."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = errors.strip().splitlines()[-1:] or ["no output"]
        if any(sign in errors for sign in _AWAY):
            return 0, [f"NOT AUDITED: no advisories can be had from here ({last[0][:200]})"]
        return code or 1, [errors.strip() or "pip-audit printed nothing"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {each['id']}, mended in {each['fix_versions'] or 'no version'}"
        for package in packages
        for each in package.get("vulns", ())
    ]
    told = [f"VULNERABLE: {line}" for line in found]
    if skipped and len(skipped) == len(packages):
        told.append(f"NOT AUDITED: this package index has no advisories for any of the {len(packages)} locked packages")
    elif skipped:
        told.append(f"NOT AUDITED, the package index has no advisories for them: {', '.join(skipped)}")
    if len(skipped) < len(packages):
        told.append(f"{len(packages) - len(skipped)} locked packages audited, {len(found)} known vulnerabilities")
    return int(bool(found)), told


def main() -> int:
    """Run it from the repository's root."""
    tool = Path(sys.executable).parent / "pip-audit"
    # Nothing is resolved or installed: the lock says it all.
    command = [str(tool), "--requirement", LOCK, "--require-hashes", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "10", *sys.argv[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        code, told = judge(1, "", f"timed out after {SECONDS:.0f} seconds")
    else:
        code, told = judge(done.returncode, done.stdout, done.stderr)
    print("\n".join(told))  # noqa: T201 - its answer
    return code


if __name__ == "__main__":
    sys.exit(main())
