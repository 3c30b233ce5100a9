"""`mount.fuse.davfs` and `umount.fuse.davfs`: what mount(8) and umount(8) run for the type fuse.davfs.

    https://host/dav  /mnt/dav  fuse.davfs  noauto,user,_netdev,username=me  0 0
    work              /mnt/work fuse.davfs  noauto,_netdev                   0 0     (a profile)

The calling conventions are those of mount(8) and umount(8), "EXTERNAL HELPERS"; so are the exit codes here:
1 for wrong usage, 32 when it failed. `umount` waits for the uploads, as `davfs unmount` does; with -l or -f
it does not, and what is unsent is sent by the next mount.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from davfs import mountpoint
from davfs.errors import ConfigError
from davfs.exitcodes import Exit

_USAGE: Final = 1
_FAILED: Final = 32


def mount_helper(argv: Sequence[str] | None = None) -> int:
    """mount.fuse.davfs SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]"""
    parser = _parser("mount.fuse.davfs", "Mounts a share for mount(8).")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="ignored")
    parser.add_argument("-f", dest="fake", action="store_true", help="check everything, mount nothing")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS")
    return _run(parser, argv, _mount)


def umount_helper(argv: Sequence[str] | None = None) -> int:
    """umount.fuse.davfs MOUNTPOINT [-flnrv] [-N NAMESPACE] [-t TYPE]"""
    parser = _parser("umount.fuse.davfs", "Unmounts a share for umount(8), when everything is sent.")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-f", dest="force", action="store_true", help="do not wait for uploads")
    parser.add_argument("-l", dest="lazy", action="store_true", help="the same, also while it is in use")
    parser.add_argument("-r", dest="read_only", action="store_true", help="ignored")
    return _run(parser, argv, _umount)


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description=about)
    parser.add_argument("-n", dest="no_mtab", action="store_true", help="ignored")
    parser.add_argument("-v", dest="verbose", action="store_true", help="ignored")
    parser.add_argument("-N", dest="namespace", metavar="NAMESPACE", help="mount(8) has entered it already")
    parser.add_argument("-t", dest="type", metavar="TYPE", help="ignored")
    return parser


def _run(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    command: Callable[[argparse.Namespace], int],
) -> int:
    from davfs.cli import told

    try:
        arguments = parser.parse_args(argv)
    except SystemExit as asked:  # --help, or wrong usage, told by argparse
        return _USAGE if asked.code else 0
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    try:
        return command(arguments)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told in one line, with its exit code
        told(error)
        return _USAGE if isinstance(error, ConfigError) else _FAILED


def _mount(arguments: argparse.Namespace) -> int:
    from davfs.commands.mount import checked_config, described, mount

    if arguments.fake:
        checked_config(*described(arguments.source, arguments.mountpoint, arguments.options))
        return Exit.OK
    status = mount(arguments.source, arguments.mountpoint, arguments.options, foreground=False)
    if os.geteuid() == 0:
        _register(arguments.mountpoint)
    return status


def _register(where: str) -> None:
    """Has umount(8) call our helper when root unmounts: it waits for the uploads.

    umount(8) takes the type from statfs(2) then, which is `fuse` for all of FUSE, unless libmount's own table
    has the mount (util-linux 2.38, seen with strace). A fake mount writes that table and does nothing else.
    """
    target = mountpoint.resolved(where)
    found = mountpoint.mount_at(target, mountpoint.mounts())
    if found is None or not found.is_davfs:
        return
    options = f"_netdev,uhelper={mountpoint.FSTYPE}"
    argv = [
        "mount",
        "--internal-only",
        "--fake",
        "-t",
        mountpoint.FSTYPE,
        "-o",
        options,
        found.source,
        target,
    ]
    with suppress(OSError, subprocess.TimeoutExpired):  # without it the journal still keeps what is unsent
        subprocess.run(argv, capture_output=True, timeout=10, check=False)


def _umount(arguments: argparse.Namespace) -> int:
    from davfs.commands.drain import unmount
    from davfs.commands.progress import UploadProgress

    hurry = arguments.force or arguments.lazy
    with UploadProgress() as bar:
        unmount(arguments.mountpoint, timeout_s=0 if hurry else 300, force=hurry, watch=bar.watch)
    return Exit.OK
