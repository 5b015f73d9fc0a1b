"""The embedded Valkey's data folder: whose it is, who holds it, where its socket is, and whether a
process serves it. The server itself is started and stopped in `embedded`."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import structlog

log = structlog.get_logger()

# A socket's path has room for 104 bytes on macOS, 108 on Linux, the closing NUL included.
_SOCKET_PATH_BYTES = 103


class EmbeddedError(Exception):
    """The embedded Valkey can't be had; the message says why and what to do."""


def _unusable(folder: Path, error: OSError) -> str:
    return f"GATEWAY_DATA_DIR {folder} can't be used ({error.strerror}); set it to a folder that can be written"


def make_private(folder: Path) -> None:
    """Create the data folder for its owner only. One that was there is narrowed only where it is plainly
    ours."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if not stat.S_IMODE(found.st_mode) & 0o077:
            return
        shared = found.st_mode & stat.S_ISVTX or found.st_uid != os.getuid()
        if not shared and ((folder / "gateway.lock").exists() or not any(folder.iterdir())):
            folder.chmod(0o700)
        else:
            log.warning("data_dir_open_to_others", data_dir=str(folder), mode=f"{found.st_mode & 0o777:o}")
    except OSError as error:
        raise EmbeddedError(_unusable(folder, error)) from error


def lock(folder: Path) -> int:
    """Hold the folder for this process. The lock ends with the process, however that ends; the file stays."""
    try:
        file = os.open(folder / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedError(_unusable(folder, error)) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
        os.close(file)
        msg = (
            f"the data folder {folder} is in use by another gateway (pid {holder}). Stop that one, "
            "set GATEWAY_DATA_DIR to another folder, or let both use one Redis with REDIS_URL"
        )
        raise EmbeddedError(msg) from error
    os.ftruncate(file, 0)
    os.write(file, f"{os.getpid()}\n".encode())
    return file


def unlock(file: int) -> None:
    """Let go of the folder."""
    # Closing releases the lock. The file is kept: removing it would let two processes lock two files of
    # one name.
    os.ftruncate(file, 0)
    os.close(file)


def socket_path(folder: Path) -> Path:
    """In the data folder, or, where that path is too long for a socket, in a private folder named after
    it."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    name = f"gateway-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (runtime, tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a private folder in it # nosec B108
        path = Path(base) / name / "valkey.sock"
        if not base or not os.access(base, os.W_OK) or len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            continue
        path.parent.mkdir(mode=0o700, exist_ok=True)
        found = path.parent.lstat()
        # Others may write to the temporary folder: one of them could have put this name there first.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            log.info("embedded_redis_socket_elsewhere", data_dir=str(folder), socket=str(path))
            return path
    msg = f"GATEWAY_DATA_DIR {folder} is too long for a Unix socket; set a path of at most 90 bytes"
    raise EmbeddedError(msg)


def alive(pid: int) -> bool:
    """Whether the process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # An orphan nobody reaps (a container whose first process does not) stays visible after its end.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def serves(pid: int, folder: Path) -> bool:
    """Whether the process is a server on that folder, and not a stranger that got the number of a dead
    one."""
    if pid <= 1 or not alive(pid):
        return False
    proc = Path(f"/proc/{pid}")
    if proc.exists():
        name = (proc / "comm").read_text().strip()
        return name in {"valkey-server", "redis-server"} and (proc / "cwd").resolve() == folder
    ps = shutil.which("ps") or "/bin/ps"
    command = [ps, "-p", str(pid), "-o", "command="]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - all fixed
    return "valkey-server" in shown.stdout or "redis-server" in shown.stdout
