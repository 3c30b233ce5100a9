"""What `davfs login` keeps: one password per share and user, in the keyring, else in a file of mode 0600.

The keyring is the library `keyring` where it is installed and has a backend that really protects (its own
measure: priority 1 or more). Without one the password goes to `<config>/davfs/logins/<key>`, a file that only
its owner can read, in a folder of mode 0700; the key is that of the share's cache. A keyring that is locked,
broken or silent is told, and never hangs a mount for longer than `KEYRING_TIMEOUT_S`.

A login counts for the URL it was made for and for every folder below it, on the same origin and for the same
user; the nearest one wins.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from davfs.config import share_key
from davfs.errors import ConfigError
from davfs.secret import Secret, read_private

KEYRING_TIMEOUT_S: Final = 60.0  # somebody may have to type the keyring's own password
_MOST_PARENTS: Final = 16
_SERVICE: Final = "davfs {}"

_log = logging.getLogger(__name__)
T = TypeVar("T")


def places(url: str) -> Iterator[str]:
    """`url` (in its normal form) and the folders above it, the nearest first."""
    parts = urlsplit(url)
    names = [name for name in parts.path.split("/") if name]
    for count in range(len(names), max(-1, len(names) - _MOST_PARENTS), -1):
        path = "/".join(["", *names[:count], ""])
        yield urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def folder(environ: Mapping[str, str], home: str | None) -> Path | None:
    """Where the files are; None for a user without a place for them."""
    configured = environ.get("XDG_CONFIG_HOME", "")
    if configured.startswith("/"):  # the XDG specification: relative ones are to be ignored
        return Path(configured, "davfs", "logins")
    return Path(home, ".config", "davfs", "logins") if home else None


class Logins:
    """The logins of this user. `where` is the folder for files; None: there is no place for them."""

    def __init__(self, where: Path | None) -> None:
        self._where = where

    def find(self, url: str, username: str) -> Secret | None:
        """The password for the share at `url`. Raises ConfigError for a file that others can read."""
        keyring = _keyring()
        for place in places(url):
            found = None if keyring is None else _asked(keyring, place, username)
            found = found or self._from_file(place, username)
            if found is not None:
                return found
        return None

    def keep(self, url: str, username: str, password: Secret) -> str:
        """Keeps it, and returns where, in words for a person."""
        keyring = _keyring()
        if keyring is not None:
            try:
                _bounded(lambda: keyring.set_password(_SERVICE.format(url), username, password.reveal()))
            except KeyringFailed as error:
                _log.info("%s: a file is used instead", error)
            else:
                self._remove_file(url, username)  # of a time before the keyring: it would be an old password
                return "the keyring"
        return self._write_file(url, username, password)

    def forget(self, url: str, username: str) -> bool:
        """Removes it everywhere; False when there was none."""
        keyring = _keyring()
        in_keyring = keyring is not None and _removed(keyring, url, username)
        return self._remove_file(url, username) or in_keyring

    # --- files ------------------------------------------------------------------------------

    def _file(self, url: str, username: str) -> Path | None:
        return None if self._where is None else self._where / share_key(url, username)

    def _from_file(self, url: str, username: str) -> Secret | None:
        path = self._file(url, username)
        if path is None or not path.exists():
            return None
        return read_private(path, "the kept login")

    def _write_file(self, url: str, username: str, password: Secret) -> str:
        path = self._file(url, username)
        if path is None:
            raise ConfigError("no place for a login: there is no keyring, and this user has no home folder")
        new = path.with_suffix(f".{os.getpid()}.new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(password.reveal().encode() + b"\n")
                file.flush()
                os.fsync(descriptor)
            new.replace(path)
        except OSError as error:
            raise ConfigError(f"{path.parent}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        return str(path)

    def _remove_file(self, url: str, username: str) -> bool:
        path = self._file(url, username)
        try:
            if path is None:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        return True


# --- the keyring ------------------------------------------------------------------------------------


class KeyringFailed(ConfigError):
    """The keyring is there and does not do what it was asked. The text never holds what it was given."""


def _keyring() -> Any:
    """The backend, or None: not installed, none configured, or only one that protects nothing."""
    try:
        import keyring
    except ImportError:
        return None
    try:
        backend = _bounded(keyring.get_keyring)
    except KeyringFailed as error:
        _log.info("%s", error)
        return None
    return backend if backend.priority >= 1 else None


def _asked(keyring: Any, url: str, username: str) -> Secret | None:
    try:
        found = _bounded(lambda: keyring.get_password(_SERVICE.format(url), username))
    except KeyringFailed as error:
        _log.info("%s", error)
        return None
    return Secret(found) if found else None


def _removed(keyring: Any, url: str, username: str) -> bool:
    service = _SERVICE.format(url)
    if not _bounded(lambda: keyring.get_password(service, username)):
        return False
    _bounded(lambda: keyring.delete_password(service, username))
    return True


def _bounded(action: Callable[[], T]) -> T:
    """The result of `action`, in a thread of its own: a D-Bus service may never answer.

    The thread has ended when this returns, so that a fork afterwards copies a process with one thread. When
    it has not ended in time, ConfigError ends the command.
    """
    results: list[T] = []
    failures: list[str] = []

    def run() -> None:
        try:
            results.append(action())
        except Exception as error:  # noqa: BLE001 - backends raise what their D-Bus library raises
            failures.append(type(error).__name__)  # never its text: it may hold the password

    thread = threading.Thread(target=run, name="keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_TIMEOUT_S)
    if thread.is_alive():
        raise ConfigError(f"the keyring did not answer within {KEYRING_TIMEOUT_S:g} s")
    if failures:
        raise KeyringFailed(f"the keyring failed ({failures[0]})")
    return results[0]
