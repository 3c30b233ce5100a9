"""What `davfs login` keeps, in a keyring and without one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from davfs import logins
from davfs.errors import ConfigError
from davfs.logins import Logins, folder, places
from davfs.secret import Secret

URL = "https://host/dav/"


class Backend:
    """What the library calls a keyring; `failure` is raised by every call."""

    priority = 5.0

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.failure: Exception | None = None

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        del self.kept[service, username]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    one = Backend()
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_keyring=lambda: one))
    return one


@pytest.fixture
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)  # its import raises ImportError


def test_the_nearest_folder_counts() -> None:
    """A login for the host is one for every share of it."""
    assert list(places("https://host:8/a/b/")) == [
        "https://host:8/a/b/",
        "https://host:8/a/",
        "https://host:8/",
    ]


def test_without_a_keyring_a_private_file_is_used(tmp_path: Path, no_keyring: None) -> None:
    """Mode 0600 in a folder of 0700; the name tells neither user nor path."""
    where = tmp_path / "davfs" / "logins"
    kept = Logins(where)
    assert kept.find(URL, "ann") is None
    place = Path(kept.keep(URL, "ann", Secret("pw ü")))
    assert kept.find(URL + "below/", "ann") == Secret("pw ü")
    assert kept.find(URL, "bob") is None
    assert kept.find("https://elsewhere/dav/", "ann") is None
    assert (stat.S_IMODE(place.stat().st_mode), stat.S_IMODE(where.stat().st_mode)) == (0o600, 0o700)
    assert "ann" not in place.name
    kept.keep(URL, "ann", Secret("newer"))
    assert kept.find(URL, "ann") == Secret("newer")
    assert [path.name for path in where.iterdir()] == [place.name]
    assert (kept.forget(URL, "ann"), kept.forget(URL, "ann")) == (True, False)
    assert kept.find(URL, "ann") is None


def test_a_file_that_others_can_read_is_refused(tmp_path: Path, no_keyring: None) -> None:
    """Somebody changed its mode: the password may be known."""
    kept = Logins(tmp_path)
    Path(kept.keep(URL, "ann", Secret("pw"))).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        kept.find(URL, "ann")


def test_a_keyring_is_preferred(tmp_path: Path, backend: Backend) -> None:
    """Nothing is written to the disk, and what was there from before is removed."""
    kept = Logins(tmp_path)
    old = Path(kept._write_file(URL, "ann", Secret("old")))
    assert kept.keep(URL, "ann", Secret("pw")) == "the keyring"
    assert backend.kept == {(f"davfs {URL}", "ann"): "pw"}
    assert not old.exists()
    assert kept.find(URL + "below/", "ann") == Secret("pw")
    assert (kept.forget(URL, "ann"), kept.forget(URL, "ann")) == (True, False)


def test_a_keyring_that_protects_nothing_is_not_used(tmp_path: Path, backend: Backend) -> None:
    """The library's own `fail`, `null` and plain-text backends have a priority below 1."""
    backend.priority = 0.5
    assert Logins(tmp_path).keep(URL, "ann", Secret("pw")) != "the keyring"
    assert backend.kept == {}


def test_a_broken_keyring_is_no_obstacle(
    tmp_path: Path, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Locked or without D-Bus: the file is used, and no message repeats what the keyring said."""
    caplog.set_level("DEBUG", "davfs")
    backend.failure = RuntimeError("cannot store hunter2")
    kept = Logins(tmp_path)
    assert kept.keep(URL, "ann", Secret("hunter2")) != "the keyring"
    assert kept.find(URL, "ann") == Secret("hunter2")
    assert "the keyring failed (RuntimeError)" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_keyring_that_hangs_ends_the_command(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-Bus may never answer: the wait is bounded, and told."""
    answered = threading.Event()
    monkeypatch.setattr(logins, "KEYRING_TIMEOUT_S", 0.1)
    monkeypatch.setattr(backend, "get_password", lambda *_: answered.wait(20))
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"within 0\.1 s"):
        Logins(None).find(URL, "ann")
    assert time.monotonic() - began < 5
    answered.set()


def test_the_real_library_without_a_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library `keyring` where no service runs: the file is used."""
    keyring = pytest.importorskip("keyring")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    keyring.core.init_backend()
    assert Logins(tmp_path).keep(URL, "ann", Secret("pw")) != "the keyring"
    assert Logins(tmp_path).find(URL, "ann") == Secret("pw")


def test_nowhere_to_keep_it(no_keyring: None) -> None:
    """A system user without a home folder: told, not lost."""
    assert folder({}, None) is None
    assert Logins(None).find(URL, "ann") is None
    with pytest.raises(ConfigError, match="no place"):
        Logins(None).keep(URL, "ann", Secret("pw"))


def test_the_folder_follows_xdg() -> None:
    """XDG_CONFIG_HOME when it is absolute, else ~/.config."""
    assert folder({"XDG_CONFIG_HOME": "/x"}, "/home/ann") == Path("/x/davfs/logins")
    assert folder({"XDG_CONFIG_HOME": "x"}, "/home/ann") == Path("/home/ann/.config/davfs/logins")


def _davfs(home: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    around = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": "",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    return subprocess.run(
        [sys.executable, "-m", "davfs", *words],
        input=typed,
        capture_output=True,
        text=True,
        env=os.environ | around,
        timeout=60,
        check=False,
    )


def test_the_commands(tmp_path: Path) -> None:
    """login reads standard input, says where the password is kept and never what it is; logout forgets."""
    done = _davfs(tmp_path, "login", "https://host/dav", "-u", "ann", typed="hunter2\nmore\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / ".config" / "davfs" / "logins") in done.stdout
    assert Logins(tmp_path / ".config" / "davfs" / "logins")._from_file(URL, "ann") == Secret("hunter2")
    assert _davfs(tmp_path, "logout", "https://host/dav", "-u", "ann").returncode == 0
    again = _davfs(tmp_path, "logout", "https://host/dav", "-u", "ann")
    assert (again.returncode, again.stderr) == (
        1,
        "davfs: no password of ann for https://host/dav/ is kept\n",
    )
    assert "hunter2" not in done.stdout + again.stdout


@pytest.mark.parametrize(
    ("words", "typed", "text"),
    [
        (["https://host/dav"], "pw", "--username"),
        (["https://host/dav", "-u", "ann"], "", "it is empty"),
        (["https://u:hunter2@host/dav", "-u", "ann"], "pw", "must not hold"),
        (["ftp://host/dav", "-u", "ann"], "pw", "http://"),
    ],
)
def test_a_login_that_cannot_be(tmp_path: Path, words: list[str], typed: str, text: str) -> None:
    """One line, exit code 2, nothing kept."""
    done = _davfs(tmp_path, "login", *words, typed=typed)
    assert (done.returncode, text in done.stderr, "hunter2" in done.stderr) == (2, True, False)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".config").exists()
