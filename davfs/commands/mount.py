"""`davfs mount`: check everything that can be checked here, then start the daemon.

The order is the promise to the user: options, mount point, FUSE, credentials, and only then the network. In
the background the command returns when the drive answers; after any failure nothing stays mounted.
"""

from __future__ import annotations

import grp
import os
import pwd
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from davfs import daemon, logs, mountpoint, profiles
from davfs.config import Config, build
from davfs.credentials import Login, login_for
from davfs.errors import ConfigError
from davfs.exitcodes import Exit, MountPointError
from davfs.options import Surroundings, expanded

if TYPE_CHECKING:
    from davfs.service import Renewed, Service

_START_S: Final = 60.0  # for imports, the index of a large cache, and the mount itself


def mount(source: str, where: str | None, options: Iterable[str], *, foreground: bool) -> int:
    """The command. `source` is a URL or a profile's name. Returns the exit code; raises DavfsError."""
    given = list(options)
    config = checked_config(*described(source, where, given))
    login = login_for(config)
    if foreground:
        return run_in_foreground(config, login, partial(_read_again, source, where, given))
    run_in_background(config, login)
    return Exit.OK


def described(source: str, where: str | None, options: Iterable[str]) -> tuple[str, str, list[str]]:
    """URL, mount point and options, after the profile that `source` may name."""
    given = list(options)
    if profiles.is_name(source):
        around = surroundings()
        profile = profiles.load(source, around)
        source, given = profile.url, [profile.options, *given]
        where = where or (profile.mountpoint and expanded(profile.mountpoint, around))
        if where is None:
            raise ConfigError(f"{profile.path} names no mountpoint, and none was given")
    elif where is None:
        raise ConfigError("say where to mount it: davfs mount URL MOUNTPOINT")
    return source, where, given


def checked_config(source: str, where: str, options: Iterable[str]) -> Config:
    """The config of a mount that this machine can make: everything but the server is checked."""
    config = build(source, mountpoint.resolved(where), options, surroundings())
    mountpoint.heal(config.mountpoint)
    mountpoint.check_mountpoint(config.mountpoint, nonempty=config.nonempty)
    mountpoint.check_fuse(allow_other=config.allow_other or config.allow_root)
    if config.cacert is not None:
        _check_cacert(config.cacert)
    return config


def _check_cacert(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ConfigError(f"cacert {path}: it holds no certificate in PEM form") from None
    except OSError as error:
        raise ConfigError(f"cacert {path}: {error.strerror}") from None


def _read_again(source: str, where: str | None, options: list[str]) -> Renewed:
    """For a reload. The mount point is mounted by now, so it is not looked at."""
    from davfs.service import Renewed

    url, place, texts = described(source, where, options)
    config = build(url, mountpoint.resolved(place), texts, surroundings())
    return Renewed(config, login_for(config))


def run_in_foreground(config: Config, login: Login | None, renew: Callable[[], Renewed]) -> int:
    """Serves until the end. With NOTIFY_SOCKET a service manager is told, and may ask for a reload."""
    from davfs.notify import Notifier
    from davfs.service import Service

    notifier = Notifier(os.environ)
    log_fd = logs.open_log(config.log_file)
    logs.start_logging(config.log_level, logs.to_terminal() if log_fd is None else logs.to_file(log_fd))
    return _serve(config, login, notifier.ready, Service(notifier, renew) if notifier else None)


def run_in_background(config: Config, login: Login | None) -> int:
    """Returns the daemon's pid when the drive answers. Raises DaemonFailed; then nothing is mounted."""
    log_fd = logs.open_log(config.log_file)
    try:
        return daemon.run_in_background(
            partial(_serve_in_background, config, login),
            within_s=_START_S + 2 * config.timeout_s,
            log_fd=log_fd,
            debug=config.log_level == "debug",
            same_group=mountpoint.is_automounted(config.mountpoint),
        )
    except BaseException:
        _leave_nothing(config.mountpoint)
        raise
    finally:
        if log_fd is not None:
            os.close(log_fd)


def _serve_in_background(config: Config, login: Login | None, ready: Callable[[], None]) -> int:
    logs.start_logging(config.log_level, logs.to_system() if config.log_file is None else logs.to_terminal())
    return _serve(config, login, ready)


def _serve(
    config: Config, login: Login | None, ready: Callable[[], None], service: Service | None = None
) -> int:
    import trio

    from davfs.mount import serve

    return trio.run(partial(serve, config, login, ready=ready, service=service))


def _leave_nothing(target: str) -> None:
    """A daemon killed between mount(2) and its first answer leaves a dead mount; nothing was there before."""
    if mountpoint.is_davfs(target):
        with suppress(MountPointError):
            mountpoint.unmount(target, lazy=True)


def surroundings() -> Surroundings:
    return Surroundings(
        environ=dict(os.environ),
        cwd=str(Path.cwd()),
        uid=os.getuid(),
        gid=os.getgid(),
        home=_home(),
        user_id=lambda name: pwd.getpwnam(name).pw_uid,
        group_id=lambda name: grp.getgrnam(name).gr_gid,
    )


def _home() -> str | None:
    """The home folder, if it is a real place: HOME, else the user database."""
    given = os.environ.get("HOME", "")
    if given.startswith("/"):
        return given
    try:
        listed = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container's made-up uid
        return None
    return listed if listed.startswith("/") and Path(listed).is_dir() else None
