"""Where passwords come from, and that they go nowhere else."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from davfs.credentials import ENVIRONMENT_NAME, Secret, from_command, from_file, password_for
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
