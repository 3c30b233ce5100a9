"""Lines of /etc/fstab with the real mount(8) and umount(8), as root and as a user.

mount(8) looks for its helpers in /sbin and for lines in /etc/fstab: a mount namespace of the test's own shows
both changed, and nothing of this machine is touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from davfs.demo import DemoServer
from tests.mount.people import opened_ways

pytestmark = [
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened"),
    pytest.mark.skipif(os.geteuid() != 0, reason="making a mount namespace with another /sbin takes root"),
]

_HELPERS = ("mount.fuse.davfs", "umount.fuse.davfs")


class Machine:
    """A shell in a mount namespace of its own, whose fstab and helpers are ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.share, self.drive = folder / "share", folder / "drive"
        self.share.mkdir()
        self.drive.mkdir()
        self.server = DemoServer(self.share)
        sbin = folder / "sbin"
        sbin.mkdir()
        for helper in _HELPERS:
            function = "umount_helper" if helper.startswith("u") else "mount_helper"
            script = sbin / helper
            script.write_text(
                f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path.cwd())!r})\n"
                f"from davfs.commands.mount8 import {function}\nsys.exit({function}())\n"
            )
            script.chmod(0o755)
        for parent in (folder, *folder.parents[:3]):
            if str(parent).startswith("/tmp/"):
                parent.chmod(0o755)  # so that another user gets to the mount point

    def run(self, options: str, script: str) -> subprocess.CompletedProcess[str]:
        """`script` where fstab has the line for the drive, with `options`."""
        fstab = self.folder / "fstab"
        fstab.write_text(f"{self.server.url} {self.drive} fuse.davfs {options} 0 0\n")
        over = self.folder / "over"
        over.mkdir(exist_ok=True)
        layers = f"lowerdir=/usr/sbin,upperdir={over}/upper,workdir={over}/work"
        prepared = (
            f"set -e; mount -t tmpfs tmpfs {over}; mkdir {over}/upper {over}/work;"
            f" cp {self.folder}/sbin/* {over}/upper/; mount -t overlay -o {layers} overlay /usr/sbin;"
            f" mount --bind {fstab} /etc/fstab; mount -t tmpfs tmpfs /run/mount;"
            # 0666 as udev makes it; some machines without udev have it for root alone
            f" mknod -m 666 {over}/fuse c 10 229; mount --bind {over}/fuse /dev/fuse;"
            f"{opened_ways(over, Path(sys.base_prefix), Path.cwd(), self.folder)} set +e; D={self.drive}; "
        )
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepared + script],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder)},
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.server.stop()


def test_a_line_of_fstab(machine: Machine) -> None:
    """`mount DIR` and `umount DIR`: after umount the server has what was written; options are obeyed."""
    done = machine.run(
        "noauto,user,_netdev,x-systemd.automount,nofail,umask=027,uid=1234,exec",
        "mount $D && findmnt -no FSTYPE,OPTIONS $D && echo hello >$D/a.txt && stat -c '%u %a' $D/a.txt;"
        " umount $D; echo $?; findmnt $D || echo gone",
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fuse.davfs")
    assert "nosuid" in lines[0]
    assert lines[1:] == ["1234 640", "0", "gone"]
    assert (machine.share / "a.txt").read_text() == "hello\n"


def test_umount_waits_for_the_uploads(machine: Machine) -> None:
    """200 files are written, and all are on the server when umount returns."""
    done = machine.run(
        "noauto,write_back=30",
        "mount $D && for i in $(seq 200); do echo $i >$D/$i; done && umount $D; echo $?",
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert len(list(machine.share.glob("[0-9]*"))) == 200


def test_standard_options(machine: Machine) -> None:
    """ro and noexec do what they say."""
    done = machine.run(
        "noauto,ro,noexec",
        "mount $D && findmnt -no OPTIONS $D && touch $D/x; umount $D; echo $?",
    )
    options = done.stdout.splitlines()[0].split(",")
    assert {"ro", "noexec"} <= set(options)
    assert "Read-only file system" in done.stderr
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("noauto,usrname=me", 1, "did you mean 'username'"),
        ("noauto,password=hunter2", 1, "a password is never given"),
        ("noauto,username=me", 1, "no password for me"),
        ("noauto,cacert=/no/such/file", 1, "No such file"),
    ],
)
def test_a_bad_line_is_told(machine: Machine, options: str, code: int, said: str) -> None:
    """One clear line, and mount(8)'s exit codes."""
    done = machine.run(options, "mount $D; echo $?; findmnt $D || echo gone")
    assert done.stdout.splitlines() == [str(code), "gone"]
    assert said in done.stderr
    assert "hunter2" not in done.stderr


def test_fake_mounts_nothing(machine: Machine) -> None:
    """`mount -f` checks and does nothing."""
    done = machine.run("noauto", "mount -f $D; echo $?; findmnt $D || echo gone")
    assert done.stdout.splitlines() == ["0", "gone"]


def test_as_a_user(machine: Machine) -> None:
    """`user` in fstab: somebody without rights mounts, writes and unmounts."""
    os.chown(machine.drive, 65534, 65534)
    home = machine.folder / "nobody"
    home.mkdir()
    os.chown(home, 65534, 65534)
    user = f"setpriv --reuid 65534 --regid 65534 --clear-groups env HOME={home}"
    done = machine.run(
        "noauto,user,username=me,auth=auto,offline=no",
        f'export DAVFS_PASSWORD=x; {user} mount $D; echo $?; {user} sh -c "echo mine >$D/mine.txt";'
        f" {user} umount $D; echo $?; findmnt $D || echo gone",
    )
    assert done.stdout.splitlines() == ["0", "0", "gone"], done.stderr
    assert (machine.share / "mine.txt").read_text() == "mine\n"
