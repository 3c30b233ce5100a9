"""Where passwords come from, and that they go nowhere else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from davfs import logins
from davfs.credentials import (
    ENVIRONMENT_NAME,
    TOKEN_NAME,
    Secret,
    from_command,
    from_file,
    from_netrc,
    login_for,
    password_for,
)
from davfs.errors import ConfigError
from tests.unit.test_config import config_for


def private_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_shows_itself_to_nobody() -> None:
    """repr, str, formats, pickles and tracebacks hold stars."""
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret == Secret("hunter2")
    assert secret != Secret("other")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"pw\n", "pw"),
        (b"pw\r\n", "pw"),
        (b"pw", "pw"),
        (b" p w \n", " p w "),
        (b"a\nb\n", "a\nb"),
        ("ü\n".encode(), "ü"),
    ],
)
def test_a_file_gives_its_content_without_the_line_end(tmp_path: Path, content: bytes, password: str) -> None:
    """One line end is the editor's; everything else belongs to the password."""
    assert from_file(private_file(tmp_path, content)).reveal() == password


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Any access for group or others makes the file no place for a password."""
    with pytest.raises(ConfigError, match="chmod 600"):
        from_file(private_file(tmp_path, b"hunter2\n", mode))


def test_a_systemd_credential_is_accepted(tmp_path: Path) -> None:
    """systemd writes credentials with mode 0400."""
    assert from_file(private_file(tmp_path, b"x", 0o400)).reveal() == "x"


@pytest.mark.parametrize("content", [b"", b"\n", b"hunter2\xff\n", b"x" * 70_000])
def test_a_file_without_a_usable_password_is_refused_without_its_content(
    tmp_path: Path, content: bytes
) -> None:
    """Empty, not UTF-8 or far too long: one line, and the traceback does not hold the bytes."""
    with pytest.raises(ConfigError) as caught:
        from_file(private_file(tmp_path, content))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    """What is no regular file is refused at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(ConfigError, match="regular file"):
        from_file(fifo)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there is a ConfigError with the system's reason."""
    with pytest.raises(ConfigError, match="No such file"):
        from_file(tmp_path / "none")


def test_a_command_gives_its_first_line() -> None:
    """`pass show` prints the password first and notes after it."""
    assert from_command("printf 'pw with space\\nuser: me\\n'").reveal() == "pw with space"


@pytest.mark.parametrize("command", ["false", "no-such-program-here", "'open", "", "true"])
def test_a_command_that_fails_is_told(command: str) -> None:
    """Each way to fail is one line of a ConfigError."""
    with pytest.raises(ConfigError, match="password_command"):
        from_command(command)


def test_a_command_that_hangs_is_ended() -> None:
    """Nothing hangs: the command has a time-out."""
    with pytest.raises(ConfigError, match=r"within 0\.1 s"):
        from_command("sleep 20", timeout_s=0.1)


def test_the_environment_is_read_and_cleared() -> None:
    """Child processes do not inherit the variable, used or not."""
    environ = {ENVIRONMENT_NAME: "pw", "X": "y"}
    assert password_for(config_for("username=u"), environ) == Secret("pw")
    assert environ == {"X": "y"}
    environ[ENVIRONMENT_NAME] = "pw"
    assert password_for(config_for(), environ) is None
    assert environ == {"X": "y"}


def test_the_file_wins_over_the_environment(tmp_path: Path) -> None:
    """What the options say counts more than what happens to stand in the environment."""
    path = private_file(tmp_path, b"from file\n")
    config = config_for(f"username=u,password_file={path}")
    assert password_for(config, {ENVIRONMENT_NAME: "other"}) == Secret("from file")


def test_without_a_terminal_nobody_is_asked() -> None:
    """A user name without a password fails in a service, with the ways to give one."""
    with pytest.raises(ConfigError, match="DAVFS_PASSWORD"):
        password_for(config_for("username=u"), {})


def test_the_sources_have_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, command, systemd, environment, kept login, netrc: taking one away leaves the next."""
    monkeypatch.setattr(logins, "_keyring", lambda: None)
    file = private_file(tmp_path, b"file")
    units = tmp_path / "units"
    units.mkdir()
    (units / "davfs.password").write_bytes(b"systemd\n")
    (units / "davfs.password").chmod(0o440)  # an ACL's mask stands in the group's bits
    private_netrc(tmp_path, "machine host login u password netrc")
    environ = {
        "HOME": str(tmp_path),
        "CREDENTIALS_DIRECTORY": str(units),
        ENVIRONMENT_NAME: "environment",
    }
    kept = logins.Logins(logins.folder(environ, str(tmp_path)))
    kept.keep("https://host/", "u", Secret("kept"))

    def found(*options: str) -> str:
        secret = password_for(config_for("username=u", *options), dict(environ))
        assert secret is not None
        return secret.reveal()

    assert found(f"password_file={file}") == "file"
    assert found("password_command=echo command") == "command"
    assert found() == "systemd"
    (units / "davfs.password").unlink()
    assert found() == "environment"
    del environ[ENVIRONMENT_NAME]
    assert found() == "kept"
    kept.forget("https://host/", "u")
    assert found() == "netrc"
    (tmp_path / ".netrc").unlink()
    with pytest.raises(ConfigError, match="no password for u at host"):
        found()


def private_netrc(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / ".netrc"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("machine host login u password pw", "pw"),
        ("machine other login u password no\ndefault login u password pw", "pw"),
        ("machine host login somebody password no", None),
        ("machine other login u password no", None),
    ],
)
def test_netrc_counts_for_its_host_and_user(tmp_path: Path, text: str, password: str | None) -> None:
    """An entry of another host or another user is none."""
    private_netrc(tmp_path, text)
    found = from_netrc("https://host/dav/", "u", {"HOME": str(tmp_path)})
    assert (found and found.reveal()) == password


def test_a_netrc_that_others_can_read_is_refused_where_it_counts(tmp_path: Path) -> None:
    """Its mode matters only when the password would come from it."""
    private_netrc(tmp_path, "machine host login u password pw", 0o644)
    environ = {"HOME": str(tmp_path)}
    assert from_netrc("https://elsewhere/", "u", environ) is None
    with pytest.raises(ConfigError, match="chmod 600"):
        from_netrc("https://host/", "u", environ)


def test_a_broken_netrc_is_told_without_its_words(tmp_path: Path) -> None:
    """The parser's own message quotes the word it stumbled over."""
    path = private_netrc(tmp_path, "machine host login u password pw\nhunter2 x")
    with pytest.raises(ConfigError, match="line 2") as caught:
        from_netrc("https://host/", "u", {"NETRC": str(path)})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_systemd_credential_for_all_to_read_is_refused(tmp_path: Path) -> None:
    """Others must not read it, whoever wrote it."""
    (tmp_path / "davfs.password").write_bytes(b"pw")
    (tmp_path / "davfs.password").chmod(0o444)
    with pytest.raises(ConfigError, match="by others"):
        password_for(config_for("username=u"), {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_the_environment_of_the_process_is_blanked() -> None:
    """/proc/PID/environ of a running davfs does not show the password it was started with."""
    code = (
        "import os, pathlib\n"
        "from davfs.credentials import password_for\n"
        "from tests.unit.test_config import config_for\n"
        "assert password_for(config_for('username=u')).reveal() == 'hunter2'\n"
        "shown = pathlib.Path('/proc/self/environ').read_bytes()\n"
        "assert b'hunter2' not in shown, shown\n"
        "assert b'X_KEPT=kept' in shown\n"
    )
    environ = {**os.environ, ENVIRONMENT_NAME: "hunter2", "X_KEPT": "kept"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], env=environ, cwd=root, check=True, timeout=60)


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        ("auth=bearer,token_file={file}", {}),
        ("auth=bearer,token_command=cat {file}", {}),
        ("auth=bearer", {TOKEN_NAME: "tok"}),
        ("auth=bearer", {"CREDENTIALS_DIRECTORY": "{folder}"}),
    ],
)
def test_tokens_have_sources_of_their_own(tmp_path: Path, options: str, environ: dict[str, str]) -> None:
    """File, command, systemd and environment; the reader can be asked again."""
    file = private_file(tmp_path, b"tok\n")
    private_file(tmp_path, b"tok\n").rename(tmp_path / "davfs.token")
    private_file(tmp_path, b"tok\n")
    around = {name: value.format(folder=tmp_path) for name, value in environ.items()}
    login = login_for(config_for(options.format(file=file)), around)
    assert login is not None
    assert login.token is not None
    assert [login.token().reveal(), login.token().reveal()] == ["tok", "tok"]
    assert TOKEN_NAME not in around
    assert "tok'" not in repr(login)


def test_bearer_without_a_token_is_told() -> None:
    """One line with the ways to give one."""
    with pytest.raises(ConfigError, match="token_command"):
        login_for(config_for("auth=bearer"), {})


def test_negotiate_needs_no_password() -> None:
    """A Kerberos ticket is enough, and nobody is asked."""
    login = login_for(config_for("auth=negotiate"), {})
    assert login is not None
    assert (login.username, login.password) == ("", None)
