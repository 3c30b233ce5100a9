"""The examples in README.md and docs/ do what they say.

The stated substitutions: every https://NAME.example[:PORT]/... is an Apache on loopback over TLS with one
user, `me`, whose password is in DAVFS_PASSWORD, in `pass`, in `secret-tool`, and typed at a prompt; its
certificate is trusted by SSL_CERT_FILE. `scripts/` is this clone's; /etc/davfs, /var/lib and the mount points
of fstab are folders in the home. Started by root, the examples are run by a user as in tests/mount/people.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from davfs import profiles
from davfs.commands.mount8 import mount_helper
from davfs.config import build
from davfs.options import Surroundings
from tests.mount.people import ALICE, Machine, Person
from tests.packaging.examples import COMMANDS, REPO, RUNNABLE, Example, documents, examples
from tests.servers import Apache, Certificates

PASSWORD = "correct horse"
_SAMPLE_PIN = (
    "8d:1b:0e:51:9a:22:4f:0c:63:1a:7e:0b:5d:3c:90:aa:11:74:c2:f5:e6:38:0d:49:b7:2c:81:d3:5a:fe:60:97"
)
_HOST = re.compile(r"https://[\w.-]+\.example(:\d+)?(/[^\s'\"]*)?")
_WITH_EXAMPLES = [document for document in documents() if any(examples(document))]
pytestmark = [
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened"),
    pytest.mark.timeout(300),
]


def _names(document: Path) -> str:
    return str(document.relative_to(REPO))


@pytest.mark.parametrize("document", documents(), ids=_names)
def test_each_example_is_run_or_says_why_not(document: Path) -> None:
    """A block has a language; one that is no example holds no command; one that is not run has a reason."""
    for example in examples(document):
        where = f"{example.name}: "
        if example.language == "text":
            commands = [line for line in example.text.splitlines() if COMMANDS.match(line)]
            assert not commands, f"{where}commands in a block of text: {commands}"
        elif example.reason is None:
            assert example.language in RUNNABLE, (
                f"{where}language {example.language!r}: {RUNNABLE}, or `not run`"
            )


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apache]:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    with Apache(username="me", password=PASSWORD, certificates=certificates) as one:
        yield one


class _Home:
    """A user's home for one document, where davfs is installed."""

    def __init__(self, folder: Path, server: Apache, person: Person | None) -> None:
        self.folder = folder
        self._person = person
        assert server._certificates is not None
        self.url = server.url
        programs = folder / ".programs"
        for made in (programs, folder / ".config/davfs", folder / "run", folder / "etc", folder / "var"):
            made.mkdir(parents=True, mode=0o700, exist_ok=True)
        _program(programs / "davfs", f'exec {sys.executable} -m davfs "$@"')
        for manager in ("pass", "secret-tool"):
            _program(programs / manager, f"echo {shlex.quote(PASSWORD)}")
        (folder / ".ca.pem").write_bytes(server._certificates.ca.read_bytes())
        self.env = {
            "HOME": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPO),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "SSL_CERT_FILE": str(folder / ".ca.pem"),
            "DAVFS_PASSWORD": PASSWORD,
            "LC_ALL": "C.UTF-8",
        }
        self._profile('url = "https://cloud.example/dav"\nmountpoint = "~/cloud"\nusername = "me"\n')

    def _own(self) -> None:
        """What the test wrote belongs to who runs the examples."""
        if self._person is not None:
            for place in (self.folder, *self.folder.rglob("*")):
                if not place.is_mount():
                    os.chown(place, self._person.uid, self._person.uid, follow_symlinks=False)

    def _profile(self, text: str) -> None:
        path = self.folder / ".config/davfs/cloud.toml"
        path.write_text(self.substituted(text))
        path.chmod(0o600)
        self._own()

    def substituted(self, text: str) -> str:
        text = _HOST.sub(self.url, text)
        text = re.sub(r"\w+\.example:\d+", self.url.split("/")[2], text)
        for before, after in {
            "EXAMPLE\\\\": "",  # Apache's user has no domain
            "scripts/": f"{REPO}/scripts/",
            "/etc/davfs": f"{self.folder}/etc",
            "/var/lib/node_exporter": str(self.folder / "var"),
            " /mnt/": f" {self.folder}/mnt-",
        }.items():
            text = text.replace(before, after)
        return text

    def run(self, example: Example) -> None:
        text = self.substituted(example.text)
        getattr(self, f"_{example.language}")(example, text)

    def _sh(self, example: Example, text: str) -> None:
        script = f"cd {self.folder}; set -e\n{text}"
        if self._person is not None:
            done = self._person.runs(script, typed=f"{PASSWORD}\n", **self.env)
        else:
            done = subprocess.run(
                ["sh", "-c", script],
                env={**os.environ, **self.env},
                input=f"{PASSWORD}\n",
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, f"{example.name}\n{text}\n{done.stdout}{done.stderr}"

    def _toml(self, example: Example, text: str) -> None:
        profile = profiles.parse(Path("/home/me/cloud.toml"), example.text)  # as it stands there
        around = Surroundings({}, "/", 1000, 1000, "/home/me", int, int)
        build(profile.url, profile.mountpoint or "/drive", [profile.options], around)
        self._profile(text.replace(_SAMPLE_PIN, self.pin()))

    def pin(self) -> str:
        """The SHA-256 fingerprint of the server's certificate."""
        host, _, port = self.url.split("/")[2].partition(":")
        certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))
        return hashlib.sha256(certificate).hexdigest()

    def _fstab(self, example: Example, text: str) -> None:
        """Each line as mount(8) gives it to the helper, with -f: everything is checked, nothing mounted."""
        for line in filter(None, text.splitlines()):
            fields = line.split()
            assert len(fields) == 6, example.name
            source, place, kind, options, dump, check = fields
            assert (kind, dump, check) == ("fuse.davfs", "0", "0"), example.name
            Path(place).mkdir()
            assert mount_helper([source, place, "-f", "-o", options]) == 0, f"{example.name}: {line}"


@pytest.fixture
def home(server: Apache, tmp_path: Path) -> Iterator[_Home]:
    if os.geteuid():
        yield _Home(tmp_path, server, None)
        return
    machine = Machine()
    try:
        alice = Person(machine, ALICE)
        yield _Home(alice.home, server, alice)
        assert machine.mounted() == [], "the document leaves something mounted"
    finally:
        machine.close()


@pytest.fixture
def _machine_profile(home: _Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile that a line of fstab may name is root's."""
    folder = tmp_path / "machine" / "davfs"
    folder.mkdir(parents=True)
    (folder / "cloud.toml").write_text(f'url = "{home.url}"\nmountpoint = "~/cloud"\nusername = "me"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent))


@pytest.mark.usefixtures("_machine_profile")
@pytest.mark.parametrize("document", _WITH_EXAMPLES, ids=_names)
def test_the_examples_work(document: Path, home: _Home) -> None:
    """In the order of the document; all succeed, and none leaves a mount behind."""
    for example in examples(document):
        if example.reason is None and example.language in RUNNABLE:
            home.run(example)


def test_the_first_command_of_the_readme() -> None:
    """`scripts/demo --run`: set up, a server, a mount, a command in it, and all of it gone again."""
    done = subprocess.run(
        [REPO / "scripts" / "demo", "--run", "cat README.txt; echo new >new.txt; cat new.txt"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "new"), done.stderr
    assert "This folder is a WebDAV share" in done.stdout
