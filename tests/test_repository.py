"""The repository as a whole: what may be in it, that the locks hold, that the imports run downward."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from as_user import BIN, ROOT, plain_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock", "requirements-bench.lock")
# In two halves each, so that this file does not hold what it looks for.
REGISTRY_HOSTS = [
    "py" + "pi.org",
    "files.python" + "hosted.org",
    "registry.np" + "mjs.org",
    "gh" + "cr.io",
    "doc" + "ker.io",
]
MACHINE_PATHS = ["/wo" + "rk/", "/ro" + "ot/", "/opt/py" + "pi"]


def tracked() -> list[Path]:
    """Every text file that belongs to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def pyproject() -> dict[str, dict[str, object]]:
    """The [project] and [tool] tables."""
    table: dict[str, dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return table


def requirements(kind: str) -> list[Requirement]:
    """What pyproject.toml asks for: "runtime", or "dev" on top of it."""
    project = pyproject()["project"]
    runtime = project["dependencies"]
    extras = project["optional-dependencies"]
    assert isinstance(runtime, list)
    assert isinstance(extras, dict)
    return [Requirement(line) for line in (runtime if kind == "runtime" else runtime + extras["dev"])]


def locked(name: str) -> dict[str, tuple[str, int]]:
    """A lock's entries: name to version and number of hashes."""
    entries: dict[str, tuple[str, int]] = {}
    current = ""
    for line in (ROOT / name).read_text().splitlines():
        if pinned := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line):
            current = canonicalize_name(pinned[1])
            entries[current] = (pinned[2], 0)
        elif re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line):
            version, hashes = entries[current]
            entries[current] = (version, hashes + 1)
        else:
            assert line.lstrip().startswith("#"), f"{name}: a line that is neither a pin nor a hash: {line}"
    return entries


def test_no_registry_hosts_and_no_paths_of_a_machine() -> None:
    """No file names a package registry's host or a folder of somebody's machine."""
    unwanted = re.compile("|".join(map(re.escape, REGISTRY_HOSTS + MACHINE_PATHS)))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if unwanted.search(line)
    ]
    assert not found


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_have_a_hash_for_everything(lock: str) -> None:
    """Every entry of a lock is pinned to one version and has at least one hash."""
    entries = locked(lock)
    assert entries
    assert not [name for name, (_, hashes) in entries.items() if not hashes]


@pytest.mark.parametrize(("lock", "kind"), [("requirements.lock", "runtime"), ("requirements-dev.lock", "dev")])
def test_locks_cover_what_pyproject_asks_for(lock: str, kind: str) -> None:
    """Every dependency of pyproject.toml is in its lock, at a version that it allows."""
    entries = locked(lock)
    for wanted in requirements(kind):
        version, _ = entries.get(canonicalize_name(wanted.name), ("missing", 0))
        assert version != "missing", wanted.name
        assert wanted.specifier.contains(version), f"{wanted} but {version} is locked"


def test_locks_agree() -> None:
    """What is tested is what is run: the other locks hold the development lock's versions."""
    development = locked("requirements-dev.lock")
    for lock in ("requirements.lock", "requirements-build.lock"):
        for name, (version, _) in locked(lock).items():
            assert development[name][0] == version, name


def test_build_lock_suffices_to_build() -> None:
    """What the build system of pyproject.toml needs is in the build lock, so a build needs no isolation."""
    wanted = pyproject()["build-system"]["requires"]
    assert isinstance(wanted, list)
    entries = locked("requirements-build.lock")
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(entries[canonicalize_name(requirement.name)][0])


def test_every_package_folder_is_installed() -> None:
    """pyproject.toml lists every folder of the package, those of files alone too, so that the image has what the
    checkout has and no build warns of one."""
    setuptools = pyproject()["tool"]["setuptools"]
    assert isinstance(setuptools, dict)
    files = [path.relative_to(ROOT) for path in (ROOT / "gateway").rglob("*") if path.is_file()]
    folders = {".".join(file.parent.parts) for file in files if "__pycache__" not in file.parts}
    assert set(setuptools["packages"]) == folders


def test_imports_run_downward() -> None:
    """The import contracts of pyproject.toml hold."""
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=ROOT,
        env=plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "target", ["help", "run", "test", "check", "sbom", "fuzz", "demo", "screenshots", "bench", "venv", "lock", "clean"]
)
def test_make_has_its_targets(target: str) -> None:
    """`make help` lists the target, and make knows how to reach it."""
    make = ["make", f"PYTHON={sys.executable}"]
    shown = subprocess.run([*make, "help"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert re.search(rf"^  make {target} ", shown, re.MULTILINE)
    dry = subprocess.run([*make, "--dry-run", target], cwd=ROOT, capture_output=True, check=False)
    assert dry.returncode == 0, dry.stderr
