"""Which admin key a caller shows: one of the settings, or of `ADMIN_KEYS_FILE`, which is read again once it changes."""

import contextlib
import hmac

import structlog

from gateway import metrics
from gateway.admin_keys import NO_KEY, AdminKey, admin_keys_file, clash, digest_of
from gateway.errors import TooManyRequests, Unauthorized
from gateway.middleware.guesses import Count, Guesses
from gateway.reloading import WatchedFiles
from gateway.settings import Settings

log = structlog.get_logger()


class Keyring:
    """Every admin key there is. ``required``: whether there are any, without which the address decides alone.
    ``files``: what is to be looked at so that a change of the file holds."""

    def __init__(self, settings: Settings, count: Count | None = None) -> None:
        self.required = settings.has_admin_keys
        self.files: tuple[WatchedFiles, ...] = ()
        self._own = self._keys = settings.own_admin_keys
        self._guesses = Guesses(settings.admin_guesses_per_min, count)
        file = settings.admin_keys_file
        if file is not None:
            path = str(file.path)
            self._keys += file.keys
            self.files = (WatchedFiles("ADMIN_KEYS_FILE", (file.path,), lambda: self._read(path)),)
            with contextlib.suppress(ValueError):  # it may be another one than when the settings were read
                self._read(path)

    def _read(self, path: str) -> None:
        keys = (*self._own, *admin_keys_file(path).keys)
        if problem := clash(keys):
            msg = f"with ADMIN_KEYS and ADMIN_API_KEY, {problem}"
            raise ValueError(msg)
        self._keys = keys

    async def judge(self, given: str, address: str, path: str, *, where: str = "the header X-Admin-Key") -> AdminKey:
        """The key that ``given`` is. Raises `Unauthorized`, or `TooManyRequests` where too many wrong ones came from
        this address lately.

        ``path`` is for the log, which never has the key; ``where`` the caller gave it.
        """
        if given:
            try:
                self._guesses.refuse(address)
            except TooManyRequests:
                metrics.admin_denied("guesses")
                log.warning("admin_denied", reason="too many wrong keys", address=address, path=path)
                raise
        key = self._find(given)
        if key is None:
            metrics.admin_denied("key")
            log.warning("admin_denied", reason="wrong key" if given else "no key", address=address, path=path)
            if given:
                await self._guesses.wrong(address)
            msg = f"{where}: must be one of the gateway's admin keys (ADMIN_API_KEY, ADMIN_KEYS)"
            raise Unauthorized(msg)
        return key

    def named(self, name: str) -> AdminKey | None:
        """The key that has this name now; None: there is none any more."""
        return next((key for key in self._keys if key.name == name), None)

    def holds(self, key: AdminKey) -> bool:
        """Whether this key still is one of them, with this role; where none is asked for, whether that is still so."""
        return key in self._keys if self.required else key == NO_KEY

    def _find(self, given: str) -> AdminKey | None:
        digest = digest_of(given.encode("utf-8", "surrogateescape"))
        found = None
        for key in self._keys:  # all of them, so that the time tells nothing of which it is
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found
