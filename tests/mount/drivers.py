"""Two ways to use a share with one API, so that every scenario runs with and without a kernel.

`DirectDriver` calls `Filesystem` in a trio loop of its own thread, through `Vfs`. `KernelDriver` uses a
real mount: `python -m davfs mount --foreground` in one process, and the calls in another (hands.py),
because a mount that hangs would take pytest with it. Both raise OSError with the errno that a program
would see, and `Hung` when no answer comes in time.

Paths are relative to the driver's folder ("" is the folder itself); `disk` is that folder on the server's
disk. A mount ends in the order of politeness: `davfs unmount`, SIGTERM, lazy unmount, abort of the FUSE
connection, SIGKILL by process id; nothing of it outlives `close`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import trio

from davfs import control
from davfs.dav.auth import Credentials, build_auth
from davfs.dav.lanes import Lanes, LaneSettings
from davfs.errors import DavfsError
from davfs.exitcodes import CommandFailed, Exit
from davfs.fs.settings import Settings
from davfs.mountpoint import resolved
from tests.mount.assembly import running
from tests.mount.vfs import Stat, Vfs

CALL_TIMEOUT_S = 60.0  # no call takes longer than the 30 s that the server may keep it waiting, twice
START_TIMEOUT_S = 90.0  # a second or two on an idle machine; eight at once on a loaded core took ten
END_TIMEOUT_S = 90.0  # sixteen at once, each with 200 listings to save, took 28 s on a loaded core
_HANDS = Path(__file__).with_name("hands.py")
_REPO = Path(__file__).parents[2]


class Hung(Exception):
    """No answer in time: what promise 6 forbids."""


class Space(NamedTuple):
    total_bytes: int
    free_bytes: int


class Driver(Protocol):
    """What a scenario may use with either driver."""

    name: str
    disk: Path

    def open(self, path: str, flags: int = ..., mode: int = ...) -> int: ...
    def close(self, fd: int) -> None: ...
    def read(self, fd: int, size: int = ...) -> bytes: ...
    def write(self, fd: int, data: bytes) -> int: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def pwrite(self, fd: int, data: bytes, offset: int) -> int: ...
    def seek(self, fd: int, offset: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def fstat(self, fd: int) -> Stat: ...
    def ftruncate(self, fd: int, size: int) -> None: ...
    def futime(self, fd: int, mtime_ns: int) -> None: ...
    def stat(self, path: str) -> Stat: ...
    def lstat(self, path: str) -> Stat: ...
    def listdir(self, path: str = ...) -> list[str]: ...
    def truncate(self, path: str, size: int) -> None: ...
    def utime(self, path: str, mtime_ns: int, atime_ns: int | None = ...) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def chown(self, path: str, uid: int, gid: int) -> None: ...
    def mkdir(self, path: str, mode: int = ...) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def rename_noreplace(self, old: str, new: str) -> None: ...
    def listxattr(self, path: str) -> list[str]: ...
    def getxattr(self, path: str, name: str) -> bytes: ...
    def setxattr(self, path: str, name: str, value: bytes) -> None: ...
    def removexattr(self, path: str, name: str) -> None: ...
    def symlink(self, target: str, path: str) -> None: ...
    def readlink(self, path: str) -> str: ...
    def statvfs(self) -> Space: ...
    def sync(self, timeout_s: float = ...) -> int: ...
    def read_file(self, path: str) -> bytes: ...
    def write_file(self, path: str, data: bytes) -> None: ...


class _Files:
    """Whole files, for drivers that have open, read, write, close."""

    open: Callable[..., int]
    read: Callable[..., bytes]
    write: Callable[..., int]
    close: Callable[[int], None]

    def read_file(self, path: str) -> bytes:
        fd = self.open(path, os.O_RDONLY)
        try:
            return b"".join(iter(lambda: self.read(fd, 1 << 20), b""))
        finally:
            self.close(fd)

    def write_file(self, path: str, data: bytes) -> None:
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            while data:
                data = data[self.write(fd, data) :]
        finally:
            self.close(fd)


# --- without a kernel ---------------------------------------------------------------------------------


class DirectDriver(_Files):
    """`Filesystem` itself. `prefix` is a folder of the share that paths start in."""

    name = "direct"

    def __init__(
        self, url: str, disk: Path, settings: Settings, *, credentials: Credentials | None = None
    ) -> None:
        self.disk = disk
        self._url = url
        self._auth = build_auth("auto", url, credentials)
        self._settings = settings
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="direct driver")
        self._thread.start()
        self._ready.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._thread.join(START_TIMEOUT_S)
            raise self._failure

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits in __init__ or close
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._closing = trio.Event()
        wire = Lanes(self._auth, LaneSettings())
        async with wire, running(wire, self._url, self._settings) as fs:
            self._vfs = Vfs(fs)
            self._ready.set()
            await self._closing.wait()

    def close_driver(self) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._closing.set)
        self._thread.join(START_TIMEOUT_S)
        if self._thread.is_alive():
            raise Hung("the file system did not stop")
        self._raise_failure()

    def _call(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async def bounded() -> Any:
            with trio.move_on_after(CALL_TIMEOUT_S):
                return await method(*arguments)
            raise Hung(f"{method.__name__}{arguments!r}"[:200])

        try:
            return trio.from_thread.run(bounded, trio_token=self._token)
        except DavfsError as error:
            raise OSError(error.errno, str(error)) from error

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        return int(self._call(self._vfs.open, path, flags, mode))

    def close(self, fd: int) -> None:
        self._call(self._vfs.close, fd)

    def read(self, fd: int, size: int = 1 << 20) -> bytes:
        return bytes(self._call(self._vfs.read, fd, size))

    def write(self, fd: int, data: bytes) -> int:
        return int(self._call(self._vfs.write, fd, data))

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._call(self._vfs.pread, fd, size, offset))

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return int(self._call(self._vfs.pwrite, fd, data, offset))

    def seek(self, fd: int, offset: int) -> None:
        self._call(self._vfs.seek, fd, offset)

    def fsync(self, fd: int) -> None:
        self._call(self._vfs.fsync, fd)

    def fstat(self, fd: int) -> Stat:
        return Stat(*self._call(self._vfs.fstat, fd))

    def ftruncate(self, fd: int, size: int) -> None:
        self._call(self._vfs.ftruncate, fd, size)

    def futime(self, fd: int, mtime_ns: int) -> None:
        self._call(self._vfs.futime, fd, mtime_ns)

    def stat(self, path: str) -> Stat:
        return Stat(*self._call(self._vfs.stat, path))

    lstat = stat

    def listdir(self, path: str = "") -> list[str]:
        return list(self._call(self._vfs.listdir, path))

    def truncate(self, path: str, size: int) -> None:
        self._call(self._vfs.truncate, path, size)

    def utime(self, path: str, mtime_ns: int, atime_ns: int | None = None) -> None:
        self._call(self._vfs.utime, path, mtime_ns, atime_ns)

    def chmod(self, path: str, mode: int) -> None:
        self._call(self._vfs.chmod, path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._call(self._vfs.chown, path, uid, gid)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._call(self._vfs.mkdir, path, mode)

    def rmdir(self, path: str) -> None:
        self._call(self._vfs.rmdir, path)

    def unlink(self, path: str) -> None:
        self._call(self._vfs.unlink, path)

    def rename(self, old: str, new: str) -> None:
        self._call(self._vfs.rename, old, new)

    def rename_noreplace(self, old: str, new: str) -> None:
        self._call(self._vfs.rename_noreplace, old, new)

    def listxattr(self, path: str) -> list[str]:
        return list(self._call(self._vfs.listxattr, path))

    def getxattr(self, path: str, name: str) -> bytes:
        return bytes(self._call(self._vfs.getxattr, path, name))

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self._call(self._vfs.setxattr, path, name, value)

    def removexattr(self, path: str, name: str) -> None:
        self._call(self._vfs.removexattr, path, name)

    def symlink(self, target: str, path: str) -> None:
        self._call(self._vfs.symlink, target, path)

    def readlink(self, path: str) -> str:
        return str(self._call(self._vfs.readlink, path))

    def statvfs(self) -> Space:
        quota = self._call(self._vfs.statvfs)
        free = quota.available_bytes or 0
        return Space(free + (quota.used_bytes or 0), free)

    def sync(self, timeout_s: float = 30.0) -> int:
        return int(self._call(self._vfs.fs.sync, timeout_s))


# --- with a kernel -------------------------------------------------------------------------------------


class Hands:
    """One process that makes calls on a mount, in order; see hands.py."""

    def __init__(self, cwd: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-u", str(_HANDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, name: str, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """The answer, OSError, or Hung."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        data = pickle.dumps((name, arguments))
        stdin.write(struct.pack("!I", len(data)) + data)
        stdin.flush()
        deadline = time.monotonic() + timeout_s
        size = struct.unpack("!I", self._exactly(4, deadline, name, arguments))[0]
        failure, answer = pickle.loads(self._exactly(size, deadline, name, arguments))
        if failure is not None:
            raise OSError(*failure)
        return answer

    def _exactly(self, size: int, deadline: float, name: str, arguments: tuple[Any, ...]) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        data = bytearray()
        while len(data) < size:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([stdout], [], [], left_s)[0]:
                raise Hung(f"{name}{arguments!r}"[:200])
            piece = os.read(stdout.fileno(), size - len(data))
            if not piece:
                raise Hung(f"the process that called {name} ended")
            data += piece
        return bytes(data)

    def close(self) -> None:
        """Call it when nothing of the process can hang any more: after the mount is gone or aborted."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


class Mount:
    """A running `davfs mount --foreground`. Options are those of `-o`."""

    def __init__(
        self, url: str, folder: Path, *, password: tuple[str, str] | None = None, **options: object
    ) -> None:
        self.point = folder / "mnt"
        self.point.mkdir(parents=True)
        self.log = folder / "davfs.log"
        self.cache = Path(str(options.setdefault("cache_dir", folder / "cache")))
        if password is not None:
            secret = folder / "password"
            secret.touch(0o600)
            secret.write_text(password[1] + "\n")
            options |= {"username": password[0], "password_file": secret}
        text = ",".join(name if value is True else f"{name}={value}" for name, value in options.items())
        self.command = [
            sys.executable,
            "-m",
            "davfs",
            "mount",
            url,
            str(self.point),
            "--foreground",
            "-o",
            text,
        ]
        self._environment = os.environ | {
            "PYTHONPATH": str(_REPO),
            "XDG_RUNTIME_DIR": str(folder),
            "HOME": str(folder),  # no login, netrc or keyring of the person who runs the tests
            "XDG_CONFIG_HOME": str(folder),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }
        self._device: int | None = None
        self._may_fail = (OSError,) if options.get("offline") == "ok" else ()  # it may know nothing yet
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=self._environment,
                cwd=folder,
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (device := device_of(self.point)) is None:
            if self.process.poll() is not None:
                raise RuntimeError(f"davfs mount ended with {self.process.returncode}:\n{self.log_text()}")
            if time.monotonic() > deadline:
                raise Hung(f"davfs mount was not ready in time:\n{self.log_text()}")
            time.sleep(0.01)
        self._device = device
        self._first_listing(max(1.0, deadline - time.monotonic()))

    def _first_listing(self, timeout_s: float) -> None:
        hands = Hands(Path("/"))
        try:
            with contextlib.suppress(*self._may_fail):
                hands.call("listdir", str(self.point), timeout_s=timeout_s)
        except BaseException:
            self.abort()
            raise
        finally:
            hands.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")[-8000:]

    def complaints(self) -> list[str]:
        """Warnings, errors and tracebacks that the daemon logged."""
        words = ("WARNING", "ERROR", "CRITICAL", "Traceback", "warning:", "error:")
        return [
            line
            for line in self.log.read_text(errors="replace").splitlines()
            if any(w in line for w in words)
        ]

    def resident_bytes(self) -> int:
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def davfs(
        self, *words: str, typed: str = "", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Another davfs command, such as `sync`, with the same surroundings; `typed` is its input."""
        return subprocess.run(
            [sys.executable, "-m", "davfs", *words],
            env=self._environment,
            cwd="/",
            input=typed,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            check=False,
        )

    def sync(self, timeout_s: float = 30.0) -> int:
        """0 when everything is on the server: what `davfs sync` says, without a Python to start each time."""
        try:
            with control.connect(resolved(str(self.point)), os.geteuid(), self._environment) as daemon:
                daemon.send("sync", timeout_s=timeout_s)
                answer = daemon.answer(within_s=timeout_s + 30)
        except CommandFailed as error:
            return int(error.exit_code)
        if answer is None:
            raise Hung("davfs sync")
        return int(Exit.UNSENT if answer["left"] else Exit.OK)

    def abort(self) -> None:
        """Every call that waits for the daemon ends with an error; the mount is dead."""
        if self._device is not None:
            with contextlib.suppress(OSError):
                Path(f"/sys/fs/fuse/connections/{self._device}/abort").write_text("1")

    def kill(self) -> None:
        """kill -9, and the mount point is free again; the cache stays."""
        self.process.kill()
        self.process.wait(10)
        _lazy_unmount(self.point)

    def close(self, *, grace_s: float = END_TIMEOUT_S) -> None:
        """Ends the mount for good. Raises Hung when it had to be forced."""
        forced = self._end_politely(grace_s)
        if device_of(self.point) is not None:
            self.abort()
            _lazy_unmount(self.point)
            forced = True
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
            forced = True
        if forced:
            raise Hung(f"the mount did not end by itself:\n{self.log_text()}")

    def _end_politely(self, grace_s: float) -> bool:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
                return False
            return True
        return False


def device_of(point: Path) -> int | None:
    """The minor device number of the FUSE mount at `point`, which is its number in /sys/fs/fuse."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[4] == str(point) and right.startswith("fuse"):
            return int(left.split()[2].partition(":")[2])
    return None


def _lazy_unmount(point: Path) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired, FileNotFoundError):
        subprocess.run(["fusermount3", "-u", "-z", str(point)], timeout=20, capture_output=True, check=False)


class KernelDriver(_Files):
    """Calls on a real mount, within its folder `base`. Several may share one mount."""

    name = "kernel"

    def __init__(self, mount: Mount, disk: Path, base: str = "") -> None:
        self.mount = mount
        self.disk = disk
        self.root = mount.point / base
        self.hands = Hands(Path("/"))
        self._further: list[Hands] = []

    def close_driver(self) -> None:
        for hands in (self.hands, *self._further):
            hands.close()

    def another_program(self) -> Hands:
        """A second process, for what must happen at the same time; give it absolute paths (`at`)."""
        hands = Hands(Path("/"))
        self._further.append(hands)
        return hands

    def at(self, path: str = "") -> str:
        return f"{self.root}/{path}" if path else str(self.root)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return self.hands.call(name, *arguments)
        except Hung:
            self.mount.abort()
            raise

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: str = "",
        timeout_s: float = 60.0,
        status: int | None = 0,
        env: dict[str, str] | None = None,
    ) -> str:
        """Runs a program in the drive; its standard output. `status` None takes any exit status."""
        process = subprocess.Popen(
            list(command),
            cwd=self.at(cwd),
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.mount.abort()  # else SIGKILL itself would wait for the daemon
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)
            raise Hung(f"{command}\n{self.mount.log_text()}") from None
        if status is not None and process.returncode != status:
            raise AssertionError(f"{command} ended with {process.returncode}:\n{out[-2000:]}\n{err[-4000:]}")
        return out

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        return int(self._call("open", self.at(path), flags, mode))

    def close(self, fd: int) -> None:
        self._call("close", fd)

    def read(self, fd: int, size: int = 1 << 20) -> bytes:
        return bytes(self._call("read", fd, size))

    def write(self, fd: int, data: bytes) -> int:
        return int(self._call("write", fd, data))

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._call("pread", fd, size, offset))

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return int(self._call("pwrite", fd, data, offset))

    def seek(self, fd: int, offset: int) -> None:
        self._call("seek", fd, offset)

    def fsync(self, fd: int) -> None:
        self._call("fsync", fd)

    def fstat(self, fd: int) -> Stat:
        return Stat(*self._call("fstat", fd))

    def ftruncate(self, fd: int, size: int) -> None:
        self._call("ftruncate", fd, size)

    def futime(self, fd: int, mtime_ns: int) -> None:
        self._call("futime", fd, mtime_ns)

    def stat(self, path: str) -> Stat:
        return Stat(*self._call("stat", self.at(path)))

    def lstat(self, path: str) -> Stat:
        return Stat(*self._call("lstat", self.at(path)))

    def listdir(self, path: str = "") -> list[str]:
        return list(self._call("listdir", self.at(path)))

    def truncate(self, path: str, size: int) -> None:
        self._call("truncate", self.at(path), size)

    def utime(self, path: str, mtime_ns: int, atime_ns: int | None = None) -> None:
        self._call("utime", self.at(path), mtime_ns, atime_ns)

    def chmod(self, path: str, mode: int) -> None:
        self._call("chmod", self.at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._call("chown", self.at(path), uid, gid)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._call("mkdir", self.at(path), mode)

    def rmdir(self, path: str) -> None:
        self._call("rmdir", self.at(path))

    def unlink(self, path: str) -> None:
        self._call("unlink", self.at(path))

    def rename(self, old: str, new: str) -> None:
        self._call("rename", self.at(old), self.at(new))

    def rename_noreplace(self, old: str, new: str) -> None:
        self._call("rename_noreplace", self.at(old), self.at(new))

    def listxattr(self, path: str) -> list[str]:
        return list(self._call("listxattr", self.at(path)))

    def getxattr(self, path: str, name: str) -> bytes:
        return bytes(self._call("getxattr", self.at(path), name))

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self._call("setxattr", self.at(path), name, value)

    def removexattr(self, path: str, name: str) -> None:
        self._call("removexattr", self.at(path), name)

    def symlink(self, target: str, path: str) -> None:
        self._call("symlink", target, self.at(path))

    def readlink(self, path: str) -> str:
        return str(self._call("readlink", self.at(path)))

    def statvfs(self) -> Space:
        return Space(*self._call("statvfs", self.at()))

    def sync(self, timeout_s: float = 30.0) -> int:
        return self.mount.sync(timeout_s)

    # What only a kernel can do.

    def call(self, name: str, *arguments: Any) -> Any:
        """Any call of hands.py, with absolute paths."""
        return self._call(name, *arguments)


@contextlib.contextmanager
def mounted(url: str, folder: Path, disk: Path, **options: Any) -> Iterator[KernelDriver]:
    """A mount of its own for one test, with a driver on it."""
    mount = Mount(url, folder, **options)
    driver = KernelDriver(mount, disk)
    try:
        yield driver
    finally:
        try:
            mount.close()
        finally:
            driver.close_driver()
