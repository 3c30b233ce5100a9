"""Where a password or a token comes from: the first of these sources that is there.

    1. `password_file`       a file of mode 0600                    token_file
    2. `password_command`    a command that prints it               token_command
    3. systemd               $CREDENTIALS_DIRECTORY/davfs.password  .../davfs.token
    4. the environment       DAVFS_PASSWORD                         DAVFS_TOKEN
    5. `davfs login`         the keyring, else a file of mode 0600
    6. netrc                 $NETRC or ~/.netrc, mode 0600
    7. a prompt              where somebody sits at a terminal

What is said for this mount comes before what happens to be there, and the machine before the person. Runs
before the process goes to the background, because only then is there a terminal. A source that is there and
cannot be used is an error; it never falls through to the next one, which may hold another password.

The variables are taken out of the environment when read, and out of what /proc/PID/environ shows, so that
neither a child process nor anybody who looks at the daemon finds them.
"""

from __future__ import annotations

import ctypes
import getpass
import netrc
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from davfs import logins
from davfs.config import Config
from davfs.errors import ConfigError
from davfs.options import HOW_TO_GIVE_CREDENTIALS
from davfs.secret import MAX_BYTES, Secret, check_private, decoded, read_private

__all__ = ["ENVIRONMENT_NAME", "TOKEN_NAME", "Login", "Secret", "login_for", "password_for"]

ENVIRONMENT_NAME: Final = "DAVFS_PASSWORD"
TOKEN_NAME: Final = "DAVFS_TOKEN"  # noqa: S105 - the name of a variable
COMMAND_TIMEOUT_S: Final = 30.0
_SYSTEMD_NAMES: Final = {ENVIRONMENT_NAME: "davfs.password", TOKEN_NAME: "davfs.token"}

TokenReader = Callable[[], Secret]


@dataclass(frozen=True, slots=True)
class Login:
    """What a mount authenticates with.

    `token` gives the bearer token of this moment: it may block, raises ConfigError, and is asked again when
    the token it gave is near its end or was refused.
    """

    username: str = ""
    password: Secret | None = None
    token: TokenReader | None = None


def login_for(config: Config, environ: MutableMapping[str, str] | None = None) -> Login | None:
    """The login that goes with the config; None for anonymous.

    Raises ConfigError when a source fails, or when there is none and nobody to ask.
    """
    around = os.environ if environ is None else environ
    given = {name: _taken(name, around) for name in (ENVIRONMENT_NAME, TOKEN_NAME)}
    if config.auth == "bearer" or config.token_file or config.token_command:
        return Login(config.username or "", token=_token_reader(config, around, given[TOKEN_NAME]))
    password = _password(config, around, given[ENVIRONMENT_NAME])
    if config.username is None and config.auth != "negotiate":
        return None
    return Login(config.username or "", password)


def password_for(config: Config, environ: MutableMapping[str, str] | None = None) -> Secret | None:
    """The password alone; None for anonymous and for bearer."""
    login = login_for(config, environ)
    return None if login is None else login.password


def _password(config: Config, environ: Mapping[str, str], given: Secret | None) -> Secret | None:
    if config.username is None:
        return None
    if config.password_file is not None:
        return from_file(Path(config.password_file))
    if config.password_command is not None:
        return from_command(config.password_command)
    found = from_systemd(ENVIRONMENT_NAME, environ) or given or _kept(config, config.username, environ)
    if found is not None:
        return found
    if config.auth == "negotiate":  # a Kerberos ticket needs no password
        return None
    return from_prompt(config)


def _kept(config: Config, username: str, environ: Mapping[str, str]) -> Secret | None:
    home = environ.get("HOME") or None
    found = logins.Logins(logins.folder(environ, home)).find(config.url, username)
    return found or from_netrc(config.url, username, environ)


def _token_reader(config: Config, environ: Mapping[str, str], given: Secret | None) -> TokenReader:
    if config.token_file is not None:
        return partial(from_file, Path(config.token_file), "token_file")
    if config.token_command is not None:
        return partial(from_command, config.token_command, "token_command")
    constant = from_systemd(TOKEN_NAME, environ) or given
    if constant is None:
        raise ConfigError(f"no token: give token_file=FILE or token_command=COMMAND, or set {TOKEN_NAME}")
    return lambda: constant


# --- files and commands -----------------------------------------------------------------------------


def from_file(path: Path, option: str = "password_file") -> Secret:
    """The content of a file that nobody else can read, without the line end."""
    return read_private(path, option)


def from_systemd(name: str, environ: Mapping[str, str]) -> Secret | None:
    """LoadCredential= and SetCredential= of systemd.exec(5); None when the unit has none of that name.

    systemd lets a service's own user read it by an ACL, whose mask stands in the group's bits: those
    are not looked at.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder, _SYSTEMD_NAMES[name])
    if not folder.startswith("/") or not path.exists():
        return None
    try:
        content = path.read_bytes()[: MAX_BYTES + 1]
        readable_by_all = path.stat().st_mode & 0o007
    except OSError as error:
        raise ConfigError(f"systemd credential {path}: {error.strerror}") from None
    if readable_by_all:
        raise ConfigError(f"systemd credential {path} can be read by others")
    return decoded(content, f"systemd credential {path}")


def from_command(
    command: str, option: str = "password_command", *, timeout_s: float = COMMAND_TIMEOUT_S
) -> Secret:
    """The first line that `command` prints. Its own messages and questions go to the terminal."""
    try:
        argv = shlex.split(command)
    except ValueError:
        raise ConfigError(f"{option}: a quotation mark is not closed") from None
    if not argv:
        raise ConfigError(f"{option} is empty")
    first_line, separator, _ = _output_of(argv, option, timeout_s).partition(b"\n")
    return decoded(first_line + separator, f"the output of {option}")


def _output_of(argv: list[str], option: str, timeout_s: float) -> bytes:
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{option} gave no answer within {timeout_s:g} s") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it cannot be run"
        raise ConfigError(f"{option}: {reason}") from None
    if done.returncode:
        raise ConfigError(f"{option} failed (exit status {done.returncode})")
    return done.stdout


# --- the environment --------------------------------------------------------------------------------


def _taken(name: str, environ: MutableMapping[str, str]) -> Secret | None:
    """The value of `name`, which is gone from the environment afterwards."""
    if name not in environ:
        return None
    if environ is os.environ:
        _blank(name)
    text = environ.pop(name)
    return Secret(text) if text else None


def _blank(name: str) -> None:
    """Overwrites the value where the kernel put it at execve: /proc/PID/environ reads those bytes.

    unsetenv(3) only forgets where they are.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(os.fsencode(name))
    if place:
        ctypes.memset(place, 0, len(ctypes.string_at(place)))


# --- netrc, and a person ----------------------------------------------------------------------------


def from_netrc(url: str, username: str, environ: Mapping[str, str]) -> Secret | None:
    """The password of the entry for this host and user, or of `default` if its login is this user.

    A netrc that holds such an entry must be readable by its owner alone; one without is left alone.
    """
    place = environ.get("NETRC") or os.path.join(environ.get("HOME", ""), ".netrc")  # noqa: PTH118 - HOME may be missing
    path = Path(place)
    if not path.is_absolute() or not path.is_file():
        return None
    try:
        entry = netrc.netrc(str(path)).authenticators(urlsplit(url).hostname or "")
        found = path.stat()
    except netrc.NetrcParseError as error:
        # Its text may quote a word of the file, which may be a password.
        raise ConfigError(f"netrc {path}: line {error.lineno} is not understood") from None
    except (OSError, ValueError):
        raise ConfigError(f"netrc {path} cannot be read") from None
    if entry is None or entry[0] != username or not entry[2]:
        return None
    check_private(path, found, "netrc")
    return Secret(entry[2])


def from_prompt(config: Config) -> Secret:
    """Asks at the terminal; ConfigError when there is none."""
    where = f"{config.username} at {urlsplit(config.url).hostname}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(f"no password for {where}: {HOW_TO_GIVE_CREDENTIALS}")
    return ask_person(where)


def ask_person(where: str) -> Secret:
    """The password for `where`, typed unseen. ConfigError when nothing was typed."""
    try:
        typed = getpass.getpass(f"Password for {where}: ", stream=sys.stderr)
    except EOFError:
        typed = ""
    if not typed:
        raise ConfigError(f"no password given for {where}")
    return Secret(typed)
