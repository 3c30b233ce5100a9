"""What a user installs: built by our own scripts, tried in a root of its own, taken away without a trace.

The root is this machine's with an overlay, in a mount namespace: what is installed there is nowhere else, and
what the overlay holds at the end says whether the removal was complete.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="another root takes root"),
    pytest.mark.timeout(600),
    pytest.mark.slow,
]

# A day with the installed davfs: the embedded share, mounted by the profile of a user that has nothing.
_TRY = """
export HOME=$(mktemp -d) XDG_RUNTIME_DIR=$(mktemp -d)
cd $HOME
davfs --version
davfs demo --run 'echo hello >new.txt && cat new.txt' $HOME/drive
davfs unmount /nowhere; echo "status $?"
mount.fuse.davfs -f http://127.0.0.1:1/ $HOME -o usrname=x; echo "status $?"
man -w davfs davfs.toml | sed 's#.*/##'
for each in /usr/share /usr/local/share; do
    bash -c ". $each/bash-completion/completions/davfs && complete -p davfs" >/dev/null 2>&1 && echo completes
done
"""

# What the overlay holds afterwards, apart from what dpkg, pip and the system keep for themselves.
_LEFT = f"""
cd upper && find . \\( -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache \\
    -o -name .cache -o -path .{REPO} -o -name __pycache__ \\) -prune -o -print |
    while read -r file; do [ -d "$file" ] && [ -d "/$file" ] || echo "LEFT $file"; done; echo LISTED
"""


def in_a_root_of_its_own(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    over = folder / "over"
    over.mkdir()
    prepared = (
        f"set -e; mount -t tmpfs tmpfs {over}; cd {over}; mkdir upper work root;"
        " mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root;"
        " for each in proc dev sys run; do mount --rbind /$each root/$each; done;"
        ' set +e; chroot root sh -c "$SCRIPT"; '
    )
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepared + _LEFT],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SCRIPT": script},
    )


def _tried(output: str) -> list[str]:
    return output.partition("TRIED\n")[2].partition("TRIED END\n")[0].splitlines()


_EXPECTED = ["hello", "status 10", "status 1"]


def test_the_debian_package(package: Path, tmp_path: Path) -> None:
    """Installed with dpkg, used, purged: nothing is left that was not there before."""
    script = f"""
cp {package} /tmp/davfs.deb
dpkg -i /tmp/davfs.deb >/tmp/log 2>&1 || cat /tmp/log
echo TRIED; {_TRY} echo 'TRIED END'
grep -h ^ExecStart /lib/systemd/system/davfs@.service
dpkg -P davfs >/tmp/log 2>&1 || cat /tmp/log
"""
    done = in_a_root_of_its_own(tmp_path, script)
    lines = _tried(done.stdout)
    assert lines[0].startswith("davfs "), done.stdout + done.stderr
    assert [line for line in lines if line in _EXPECTED] == _EXPECTED, done.stdout + done.stderr
    assert {"davfs.1.gz", "davfs.toml.5.gz", "completes"} <= set(lines), done.stdout + done.stderr
    assert "did you mean 'username'" in done.stderr
    assert "ExecStart=/usr/bin/davfs mount --foreground %i\n" in done.stdout
    assert (done.stdout.endswith("LISTED\n"), "LEFT " in done.stdout) == (True, False), done.stdout


def test_install_and_uninstall(tmp_path: Path) -> None:
    """scripts/install for the machine, used, scripts/uninstall: nothing is left."""
    script = f"""
{REPO}/scripts/install >/tmp/log 2>&1 || cat /tmp/log
echo TRIED; {_TRY} echo 'TRIED END'
{REPO}/scripts/uninstall >/tmp/log 2>&1 || cat /tmp/log
"""
    done = in_a_root_of_its_own(tmp_path, script)
    lines = _tried(done.stdout)
    assert lines, done.stdout + done.stderr
    assert lines[0].startswith("davfs "), done.stdout + done.stderr
    assert [line for line in lines if line in _EXPECTED] == _EXPECTED, done.stdout + done.stderr
    assert {"davfs.1", "davfs.toml.5", "completes"} <= set(lines), done.stdout + done.stderr
    assert (done.stdout.endswith("LISTED\n"), "LEFT " in done.stdout) == (True, False), done.stdout
