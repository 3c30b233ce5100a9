"""The `davfs` command: reads the command line, runs one command, tells a failure in one line.

Nothing is decided here but the exit code. Modules that take long to import (trio, httpx, rich) are imported
by the command that needs them: `davfs --help` takes no longer than Python itself. The table of options
stands in options.py, that of exit codes in exitcodes.py; the help texts are made from them.

`davfs SOURCE MOUNTPOINT -o ...` without a command is what mount(8) calls for the type fuse.davfs, and means
`davfs mount`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn

from davfs import __version__
from davfs.errors import ConfigError
from davfs.exitcodes import DaemonFailed, Exit, Unsent, exit_code_for, root_failure, table

_DEFAULT_TIMEOUT_S: Final = 300.0


class _Parser(argparse.ArgumentParser):
    """Failures are ConfigErrors, and never repeat a word that may be a password."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            message = "there are more words than this command takes, or an option it does not know"
        raise ConfigError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = command_line().parse_args(_with_command(words))
        command: Callable[[argparse.Namespace], int] = arguments.command
        return int(command(arguments))
    except BrokenPipeError:  # `davfs status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.FAILURE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told in one line, with its exit code
        return told(error, debug=any("log_level=debug" in word for word in words))


def told(error: BaseException, *, debug: bool = False) -> int:
    """Says on standard error what ended a command, in one line; returns the exit code."""
    from davfs.daemon import one_line
    from davfs.logs import printable

    if debug and not isinstance(error, DaemonFailed):  # the daemon has told its own
        import traceback

        traceback.print_exception(error)
    cause = root_failure(error)
    if isinstance(cause, KeyboardInterrupt):
        text = "interrupted"
    elif isinstance(cause, OSError):
        text = f"{cause.filename}: {cause.strerror}" if cause.filename else str(cause)
    else:
        text = one_line(error)
    lines = [f"davfs: {text}", *(cause.details if isinstance(cause, Unsent) else ())]
    sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))
    return exit_code_for(error)


# --- the commands -----------------------------------------------------------------------------------


def _mount(arguments: argparse.Namespace) -> int:
    from davfs.commands.mount import mount

    return mount(arguments.source, arguments.mountpoint, arguments.options, foreground=arguments.foreground)


def _unmount(arguments: argparse.Namespace) -> int:
    from davfs.commands.drain import unmount
    from davfs.commands.progress import UploadProgress

    with UploadProgress() as bar:
        unmount(arguments.mountpoint, timeout_s=arguments.timeout, force=arguments.force, watch=bar.watch)
    return Exit.OK


def _sync(arguments: argparse.Namespace) -> int:
    from davfs.commands.drain import sync
    from davfs.commands.progress import UploadProgress

    with UploadProgress() as bar:
        sync(arguments.mountpoint, timeout_s=arguments.timeout, watch=bar.watch)
    return Exit.OK


def _status(arguments: argparse.Namespace) -> int:
    if arguments.refresh:
        from davfs.commands.status import refresh

        refresh(arguments.mountpoint)
    if arguments.watch:
        from davfs.commands.watch import watch

        return watch(arguments.mountpoint, every_s=arguments.interval)
    from davfs.commands.status import status

    return status(arguments.mountpoint, as_json=arguments.json, as_metrics=arguments.metrics)


def _doctor(arguments: argparse.Namespace) -> int:
    from davfs.commands.doctor import doctor

    return doctor(arguments.mountpoint, full=arguments.full)


def _pending(arguments: argparse.Namespace) -> int:
    from davfs.commands import pending

    match arguments.action:
        case "list":
            return pending.list_pending(
                arguments.mountpoint, cache_dir=arguments.cache_dir, as_json=arguments.json
            )
        case "retry":
            return pending.retry(arguments.mountpoint, arguments.paths)
        case "discard":
            return pending.discard(arguments.mountpoint, arguments.paths, yes=arguments.yes)
        case "unlock":
            return pending.unlock(arguments.mountpoint, arguments.paths, force=arguments.force)
    return pending.save_as(arguments.mountpoint, arguments.path, arguments.target, force=arguments.force)


def _login(arguments: argparse.Namespace) -> int:
    from davfs.commands.login import login

    return login(arguments.target, arguments.username)


def _logout(arguments: argparse.Namespace) -> int:
    from davfs.commands.login import logout

    return logout(arguments.target, arguments.username)


def _probe(arguments: argparse.Namespace) -> int:
    from davfs.commands.probe import probe

    return probe(arguments.source, arguments.options, write=arguments.write, as_json=arguments.json)


def _demo(arguments: argparse.Namespace) -> int:
    from davfs.commands.demo import demo

    return demo(arguments.mountpoint, command=arguments.run, share=arguments.share)


# --- the command line -------------------------------------------------------------------------------


def _add_mount(parser: argparse.ArgumentParser) -> None:
    from davfs.options import options_help

    parser.add_argument(
        "source", metavar="SOURCE", help="the share: an http:// or https:// URL, or the name of a profile"
    )
    parser.add_argument(
        "mountpoint", metavar="MOUNTPOINT", nargs="?", help="the folder it appears in (a profile may name it)"
    )
    parser.add_argument(
        "-o",
        dest="options",
        action="append",
        default=[],
        metavar="NAME[=VALUE],...",
        help="options, see below; a comma in a value is written \\,",
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay, and log to the terminal")
    parser.epilog = f"options for -o:\n{options_help()}\n\n{MOUNT_NOTES}"


MOUNT_NOTES: Final = """\
The kernel's noexec, nosuid, nodev and noatime work as usual; what fstab(5) adds for itself is accepted.

The password comes from password_file, password_command, the systemd credential davfs.password, the
environment variable DAVFS_PASSWORD, `davfs login`, netrc, or a prompt: in this order. It is never an option,
where `ps` would show it. A bearer token comes from token_file, token_command, the systemd credential
davfs.token, or DAVFS_TOKEN.

The command returns when the drive answers, or fails with one line and an exit code (`davfs --help`)."""


def _add_unmount(parser: argparse.ArgumentParser) -> None:
    _add_sync(parser)
    parser.add_argument("--force", action="store_true", help="unmount even if files are left or it is in use")


def _add_sync(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=_DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help=f"wait no longer ({_DEFAULT_TIMEOUT_S:g}; `none`: as long as it takes)",
    )


def _timeout(text: str) -> float | None:
    if text == "none":
        return None
    try:
        value_s = float(text)
    except ValueError:
        value_s = -1.0
    if not 0 <= value_s < float("inf"):
        raise argparse.ArgumentTypeError("needs a number of seconds, or `none`")
    return value_s


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="only this one (default: all)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="for programs: an object, without MOUNTPOINT a list"
    )
    form.add_argument("--metrics", action="store_true", help="for Prometheus, in its text format")
    form.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="first forget what is known of the server: changes show at once",
    )
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="SECONDS", help="of --watch (1; at least 0.1)"
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="only this one (default: all)")
    parser.add_argument(
        "--full", action="store_true", help="with names of files, hosts and users; never with passwords"
    )


def _interval(text: str) -> float:
    value_s = _timeout(text)
    if value_s is None or value_s < 0.1:
        raise argparse.ArgumentTypeError("needs a number of seconds, at least 0.1")
    return value_s


def _add_pending(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.epilog = "PATH is relative to MOUNTPOINT, or a path under it; a folder means all that is below it."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    listing = actions.add_parser("list", help="what is not on the server, and why; also without a daemon")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.add_argument(
        "--cache-dir", metavar="DIR", help="without a daemon: the cache_dir that the mount had, if it had one"
    )
    retry = actions.add_parser("retry", help="try it now, also what would wait an hour")
    retry.add_argument("paths", metavar="PATH", nargs="*", help="only these (default: all)")
    discard = actions.add_parser("discard", help="give up the unsent change: the server's version stays")
    discard.add_argument("paths", metavar="PATH", nargs="+")
    discard.add_argument("--yes", action="store_true", help="do not ask")
    unlock = actions.add_parser("unlock", help="take a lock on the server away that davfs left there")
    unlock.add_argument("paths", metavar="PATH", nargs="+")
    unlock.add_argument("--force", action="store_true", help="also somebody else's, where the server lets us")
    save = actions.add_parser("save-as", help="copy the unsent bytes to another place on this machine")
    save.add_argument("path", metavar="PATH")
    save.add_argument("target", metavar="FILE")
    save.add_argument(
        "--force", action="store_true", help="replace FILE; write zeros for bytes that are only on the server"
    )


def _add_login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="URL", help="the share, or the folder it is mounted on")
    parser.add_argument(
        "-u", "--username", metavar="NAME", help="for whom (default: whom a mount of the share knows)"
    )


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="URL", help="the share, or the name of a profile")
    parser.add_argument(
        "-o",
        dest="options",
        action="append",
        default=[],
        metavar="NAME[=VALUE],...",
        help="options of `davfs mount`: username, auth, cacert ...",
    )
    parser.add_argument(
        "--write", action="store_true", help="try writing too, in a folder of its own that is removed again"
    )
    parser.add_argument("--json", action="store_true", help="for programs (docs/PROBE.md)")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "mountpoint", metavar="MOUNTPOINT", nargs="?", default="drive", help="made if it is missing (./drive)"
    )
    parser.add_argument(
        "--run", metavar="COMMAND", help="run this in the drive, then end with its exit status"
    )
    parser.add_argument(
        "--share", "--keep", metavar="DIR", help="share this folder and keep it (default: a temporary one)"
    )


class _Command(NamedTuple):
    run: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    summary: str
    aliases: tuple[str, ...] = ()


_COMMANDS: Final = {
    "mount": _Command(_mount, _add_mount, "mount a share"),
    "unmount": _Command(_unmount, _add_unmount, "wait until everything is sent, then unmount", ("umount",)),
    "sync": _Command(_sync, _add_sync, "wait until the server has everything"),
    "status": _Command(_status, _add_status, "show what is mounted, and what is not sent yet"),
    "pending": _Command(
        _pending, _add_pending, "list, retry, discard or save what is not on the server; unlock"
    ),
    "probe": _Command(_probe, _add_probe, "find out by trying what a server can do"),
    "doctor": _Command(_doctor, _add_doctor, "write a report for a bug, without names and passwords"),
    "login": _Command(_login, _add_login, "keep a password, in the keyring or a file only you can read"),
    "logout": _Command(_logout, _add_login, "forget a password that `login` kept"),
    "demo": _Command(_demo, _add_demo, "mount a share of this machine, to try davfs out"),
}
_COMMAND_WORDS: Final = frozenset(_COMMANDS) | {word for each in _COMMANDS.values() for word in each.aliases}

EPILOG_EXAMPLES: Final = (
    "davfs mount https://cloud.example/dav ~/cloud -o username=me,password_command='pass cloud'",
    "davfs status",
    "davfs unmount ~/cloud",
)
_EPILOG: Final = f"""\
`davfs SOURCE MOUNTPOINT [-o ...]` is the same as `davfs mount`: the form that mount(8) and fstab use.
`davfs COMMAND --help` tells more, `davfs mount --help` lists all options.

exit codes:
{table()}

examples:
{"".join(f"  {line}" + chr(10) for line in EPILOG_EXAMPLES).rstrip()}"""


def _with_command(words: list[str]) -> list[str]:
    """`words` with `mount` in front when they have the form that mount(8) uses."""
    first = words[0] if words else "--help"
    if first in _COMMAND_WORDS or first in {"-h", "--help", "--version"}:
        return words or [first]
    if "://" not in first and not first.startswith("-") and not _is_mount_form(words):
        raise ConfigError(_unknown_command(first))
    return ["mount", *words]


def _is_mount_form(words: list[str]) -> bool:
    """`davfs PROFILE /mount/point ...`: what mount(8) writes for an fstab line with a profile's name."""
    return len(words) > 1 and words[1].startswith("/")


def _unknown_command(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, sorted(_COMMAND_WORDS), n=1)
    return f"{word!r} is no command and no URL: " + (
        f"did you mean {near[0]!r}?" if near else "see `davfs --help`"
    )


def command_line() -> _Parser:
    """The parser of everything; manual page and completion are made from it too."""
    raw = argparse.RawDescriptionHelpFormatter
    about = "Mounts a WebDAV share as a local drive."
    parser = _Parser(prog="davfs", description=about, epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"davfs {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, command in _COMMANDS.items():
        about = f"{command.summary[0].upper()}{command.summary[1:]}."
        sub = commands.add_parser(
            name, aliases=command.aliases, help=command.summary, description=about, formatter_class=raw
        )
        sub.set_defaults(command=command.run)
        command.add_arguments(sub)
    return parser
