"""As a new user on a machine that has nothing: Debian package, profile, units and fstab under a real systemd.

One machine for all tests here (booted.py); each has its own profile and mount point. The same protocol
without a systemd, step by step: tests/mount/test_service.py and test_fstab.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.packaging.booted import Booted, needed
from tests.servers import MissingPart, Share, WsgiDav

REPO = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(bool(needed()), reason=needed() or "-"),
    pytest.mark.timeout(600),
    pytest.mark.slow,
]
_USER_MANAGER = "XDG_RUNTIME_DIR=/run/user/12001 systemctl --user"


@pytest.fixture(scope="module")
def server() -> Iterator[WsgiDav]:
    with WsgiDav(username="me", password="s3cret word") as one:
        yield one


@pytest.fixture
def cloud(server: WsgiDav) -> Iterator[Share]:
    with server.share() as one:
        yield one


@pytest.fixture(scope="module")
def machine(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    with ExitStack() as stack:
        try:
            one = stack.enter_context(Booted(tmp_path_factory.mktemp("machine")))
        except MissingPart as part:
            pytest.skip(str(part))
        shutil.copy(package, one.shared / "davfs.deb")
        assert "No such file" in one.runs("ls /usr/bin/davfs").stderr
        installed = one.runs("dpkg -i /run/shared/davfs.deb")
        assert installed.returncode == 0, installed.stdout + installed.stderr
        yield one


def _ok(machine: Booted, script: str) -> str:
    """Runs it, and it must succeed."""
    done = machine.runs(f"set -e; {script}")
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{_journal(machine)}"
    return done.stdout


def _journal(machine: Booted) -> str:
    return machine.runs("journalctl --no-pager -n 60").stdout


def _service(machine: Booted, name: str, share: Share, *more: str) -> str:
    """Profile, credential and mount point of the unit davfs@`name`; returns the mount point."""
    place = f"/mnt/{name}"
    lines = [f'url = "{share.url}"', f'mountpoint = "{place}"', 'username = "me"', *more]
    (machine.shared / f"{name}.toml").write_text("\n".join(lines) + "\n")
    _ok(
        machine,
        f"mkdir -p {place} /etc/credstore; install -m 600 /run/shared/{name}.toml /etc/davfs/{name}.toml;"
        f" umask 077; printf 's3cret word' >/etc/credstore/davfs.{name}.password",
    )
    return place


def _restart_soon(machine: Booted) -> None:
    """A drop-in, so that no test waits for the unit's 5 s."""
    folder = "/etc/systemd/system/davfs@.service.d"
    _ok(machine, f"mkdir -p {folder}; printf '[Service]\\nRestartSec=0.5\\n' >{folder}/soon.conf")
    _ok(machine, "systemctl daemon-reload")


def test_the_service(machine: Booted, cloud: Share) -> None:
    """Password from a systemd credential, enable --now, files written, stopped: the server has everything."""
    place = _service(machine, "day", cloud, "write_back = 30")
    _ok(machine, "systemctl enable --now davfs@day")
    assert machine.runs("systemctl is-active davfs@day").stdout == "active\n"
    assert _ok(machine, f"findmnt -no FSTYPE {place}") == "fuse.davfs\n"
    _ok(machine, f"mkdir {place}/sub; for i in $(seq 20); do echo $i >{place}/sub/$i.txt; done")
    machine.until("systemctl status --no-pager davfs@day", "20 files to send")
    assert not list(cloud.root.glob("sub/*"))
    _ok(machine, "systemctl reload davfs@day && systemctl stop davfs@day")
    assert {each.read_text() for each in cloud.root.glob("sub/*.txt")} == {f"{i}\n" for i in range(1, 21)}
    assert machine.runs(f"findmnt {place}").stdout == ""
    secrets = machine.runs("journalctl --no-pager; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout
    assert "s3cret" not in secrets
    _ok(machine, "systemctl disable davfs@day")


def test_killed_it_comes_back(machine: Booted, server: WsgiDav, cloud: Share) -> None:
    """SIGKILL with files unsent: systemd starts it again, the mount point is healed, the files are sent."""
    place = _service(machine, "kill", cloud, "timeout = 3")
    _restart_soon(machine)
    _ok(machine, f"systemctl start davfs@kill; ls {place}")
    server.stop()
    try:
        _ok(machine, f"for i in 1 2 3; do echo $i >{place}/$i.txt; done; cat {place}/3.txt")
        before = _ok(machine, "systemctl show -P MainPID davfs@kill")
        _ok(machine, "systemctl kill --signal=SIGKILL davfs@kill")
    finally:
        server.start_again()
    machine.until("systemctl show -P NRestarts,ActiveState davfs@kill", "active\n")
    machine.until(f"cat {place}/3.txt", "3")
    assert _ok(machine, "systemctl show -P MainPID davfs@kill") != before
    machine.until("systemctl status --no-pager davfs@kill", "the server has everything")
    assert sorted(each.read_text() for each in cloud.root.glob("*.txt")) == ["1\n", "2\n", "3\n"]
    _ok(machine, "systemctl stop davfs@kill")


def test_a_wrong_password_is_not_tried_again(machine: Booted, cloud: Share) -> None:
    """The unit fails with the exit code for that, once: no account is locked by a service that restarts."""
    _service(machine, "wrong", cloud)
    _ok(machine, "printf nonsense >/etc/credstore/davfs.wrong.password")
    assert machine.runs("systemctl start davfs@wrong").returncode != 0
    shown = _ok(machine, "systemctl show -P ExecMainStatus -P NRestarts -P ActiveState davfs@wrong").split()
    assert sorted(shown) == ["0", "7", "failed"]
    assert "refused" in machine.runs("systemctl status --no-pager davfs@wrong").stdout
    _ok(machine, "systemctl reset-failed davfs@wrong")


def test_mount_and_automount_units(machine: Booted, cloud: Share) -> None:
    """The examples: mounted at the first look, and after the stop the server has what was written."""
    _ok(machine, "umask 077; printf 's3cret word' >/etc/davfs/me.password; mkdir -p /mnt/dav")
    for name in ("mnt-dav.mount", "mnt-dav.automount"):
        text = (REPO / "systemd" / "examples" / name).read_text()
        (machine.shared / name).write_text(text.replace("https://cloud.example/dav", cloud.url))
        _ok(machine, f"cp /run/shared/{name} /etc/systemd/system/")
    _ok(machine, "systemctl daemon-reload; systemctl start mnt-dav.automount")
    assert "inactive" in machine.runs("systemctl is-active mnt-dav.mount").stdout
    _ok(machine, "echo first >/mnt/dav/a.txt; systemctl is-active mnt-dav.mount")
    _ok(machine, "systemctl stop mnt-dav.automount mnt-dav.mount")
    assert (cloud.root / "a.txt").read_text() == "first\n"
    assert machine.runs("findmnt -t fuse.davfs").stdout == ""


def test_lines_of_fstab(machine: Booted, cloud: Share) -> None:
    """`mount` and `umount` by hand, and x-systemd.automount through systemd's own generator."""
    options = "noauto,_netdev,username=me,password_file=/etc/davfs/me.password"
    _ok(machine, "umask 077; printf 's3cret word' >/etc/davfs/me.password; mkdir -p /mnt/hand /mnt/auto")
    lines = (
        f"{cloud.url} /mnt/hand fuse.davfs {options} 0 0\n"
        f"{cloud.url} /mnt/auto fuse.davfs {options},x-systemd.automount,cache_dir=/var/cache/auto 0 0\n"
    )
    (machine.shared / "fstab").write_text(lines)
    _ok(machine, "cp /run/shared/fstab /etc/fstab; systemctl daemon-reload")
    _ok(machine, "mount /mnt/hand && echo by hand >/mnt/hand/hand.txt && umount /mnt/hand")
    assert (cloud.root / "hand.txt").read_text() == "by hand\n"
    _ok(machine, "systemctl start mnt-auto.automount; cat /mnt/auto/hand.txt; echo auto >/mnt/auto/auto.txt")
    _ok(machine, "systemctl stop mnt-auto.automount mnt-auto.mount; : >/etc/fstab; systemctl daemon-reload")
    assert (cloud.root / "auto.txt").read_text() == "auto\n"


def test_the_unit_of_a_user(machine: Booted, cloud: Share) -> None:
    """`systemctl --user start davfs-user@work`: through fusermount3, under a user manager."""
    profile = f"""
        url = "{cloud.url}"
        mountpoint = "~/work"
        username = "me"
        password_file = "work.password"
        """
    (machine.shared / "work.toml").write_text(textwrap.dedent(profile))
    as_alice = "setpriv --reuid=12001 --regid=12001 --clear-groups env HOME=/home/alice"
    _ok(machine, "install -d -m 700 -o 12001 -g 12001 /run/user/12001")
    _ok(
        machine,
        f"{as_alice} sh -ec 'umask 077; mkdir -p ~/work ~/.config/davfs;"
        " cp /run/shared/work.toml ~/.config/davfs/;"
        ' printf "s3cret word" >~/.config/davfs/work.password\'',
    )
    _ok(
        machine,
        "systemd-run -q --unit=alice -p User=alice -p Delegate=yes -p Type=notify"
        " -E XDG_RUNTIME_DIR=/run/user/12001 /lib/systemd/systemd --user",
    )
    _ok(machine, f"{as_alice} {_USER_MANAGER} start davfs-user@work")
    _ok(machine, f"{as_alice} sh -c 'echo mine >/home/alice/work/mine.txt'")
    assert "Permission denied" in machine.runs("ls /home/alice/work").stderr
    _ok(machine, f"{as_alice} {_USER_MANAGER} stop davfs-user@work")
    assert (cloud.root / "mine.txt").read_text() == "mine\n"
    _ok(machine, "systemctl stop alice")


def test_without_a_server_at_boot(machine: Booted, server: WsgiDav, cloud: Share) -> None:
    """The unit is tried again until its server is there; with offline=ok it starts at once."""
    place = _service(machine, "later", cloud, "timeout = 1")
    away = _service(machine, "away", cloud, "timeout = 1", 'offline = "ok"', 'cache_dir = "/var/cache/away"')
    _ok(machine, f"systemctl start davfs@away; ls {away}; systemctl stop davfs@away")
    _restart_soon(machine)
    server.stop()
    try:
        _ok(machine, f"systemctl start davfs@away; echo early >{away}/early.txt")
        assert machine.runs("systemctl start davfs@later").returncode != 0
    finally:
        server.start_again()
    machine.until("systemctl is-active davfs@later", "active\n")
    machine.until(f"cat {place}/early.txt", "early")
    assert (cloud.root / "early.txt").read_text() == "early\n"
    _ok(machine, "systemctl stop davfs@later davfs@away")


def test_removed(machine: Booted) -> None:
    """Last of all: purged, neither command, unit nor manual page is there any more."""
    _ok(machine, "rm -f /etc/davfs/*; dpkg -P davfs")
    left = machine.runs(
        "ls /usr/bin/davfs /usr/lib/davfs /etc/davfs /lib/systemd/system/davfs@.service"
    ).stdout
    assert left == ""


def _the_two_commands_of_the_readme(tmp_path: Path) -> None:
    """On a Debian with nothing: a clone, `scripts/demo` sets all up and works, `scripts/install` too."""
    with Booted(tmp_path) as machine:
        tracked = subprocess.run(["git", "archive", "HEAD"], cwd=REPO, capture_output=True, check=True).stdout
        (machine.shared / "davfs.tar").write_bytes(tracked)
        for file in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
            if Path(file).exists():  # the way to Debian's and Python's packages is the host's
                shutil.copy(file, machine.shared)
        _ok(machine, "cd /run/shared; cp resolv.conf /etc; cp ca-certificates.crt /etc/ssl/certs")
        _ok(machine, "cp /run/shared/pip.conf /etc 2>/dev/null || true")
        _ok(machine, "mkdir /srv/davfs; tar -C /srv/davfs -xf /run/shared/davfs.tar; ! which gcc git")
        begin = "export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PATH=$PATH:/usr/local/bin; cd /srv/davfs"
        first = machine.runs(f"{begin}; scripts/demo --run 'echo new >new.txt; cat new.txt'", timeout_s=900)
        assert (first.returncode, first.stdout.splitlines()[-1]) == (0, "new"), first.stdout + first.stderr
        again = machine.runs(f"{begin}; scripts/demo --run 'cat notes/monday.txt'")
        assert again.stdout.splitlines()[-1] == "Write the plan.", again.stderr
        used = machine.runs(
            f"{begin}; scripts/install && davfs demo --run 'ls' /mnt/x && scripts/uninstall", timeout_s=900
        )
        assert "README.txt" in used.stdout, used.stdout + used.stderr
        assert machine.runs(f"{begin}; which davfs").stdout == ""


# Takes the network and three minutes: not a part of each run. .ci/run itself begins with an empty clone.
if os.environ.get("DAVFS_CLEAN_ROOT"):
    test_the_two_commands_of_the_readme = pytest.mark.timeout(1800)(_the_two_commands_of_the_readme)
