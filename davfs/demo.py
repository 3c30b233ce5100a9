"""The demo's server: a WsgiDAV share on loopback, anonymous, over a folder of sample files.

It runs in a process of its own, so that it shares neither the GIL with the daemon nor Ctrl-C with the
terminal, and it dies with whoever started it: its standard input is a pipe, and the end of that pipe is its
end. Imports nothing from davfs: it is started as a script.

    python demo.py FOLDER      prints its port as one line, then serves until standard input ends
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

_START_WITHIN_S: Final = 30.0
_THREADS: Final = 16  # as many as davfs uses connections by default

SAMPLES: Final = {
    "README.txt": (
        "This folder is a WebDAV share, served by this machine for this demo only.\n"
        "Everything here can be read, changed, renamed and deleted like any file.\n"
        "\n"
        "Try:   echo hello > hello.txt; ls -l; cp -r notes copy; grep -r davfs .\n"
        "Leave: Ctrl-C where `davfs demo` runs.\n"
    ),
    "notes/monday.txt": "Write the plan.\n",
    "notes/tuesday.txt": "Throw the plan away; davfs keeps the old one.\n",
    "notes/a name with spaces, ü and 100%.txt": "Names may hold what they like.\n",
    "data/planets.csv": (
        "name,moons,day_hours\nMercury,0,4222.6\nVenus,0,2802.0\nEarth,1,24.0\nMars,2,24.7\n"
        "Jupiter,95,9.9\nSaturn,146,10.7\nUranus,28,17.2\nNeptune,16,16.1\n"
    ),
}


def fill(folder: Path) -> None:
    """Puts the sample files into `folder`, if it is empty."""
    if any(folder.iterdir()):
        return
    for name, text in SAMPLES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


class DemoServer:
    """The server process, from its first answer to `stop`. Raises OSError when it does not start."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            # -P: the script's folder must not stand in sys.path, where it would hide other modules.
            [sys.executable, "-P", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo: uploads still need the server
        )
        try:
            self.url = f"http://127.0.0.1:{self._read_port()}/"
        except BaseException:
            self.stop()
            raise

    def _read_port(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        timer = threading.Timer(_START_WITHIN_S, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()  # the caller forks: no other thread may be alive
        if not line.strip().isdigit():
            raise OSError(f"the demo's server did not start: {self._last_words()}")
        return int(line)

    def _last_words(self) -> str:
        self._process.kill()
        said = self._process.communicate()[1].decode("utf-8", "replace").strip()
        return said.splitlines()[-1] if said else "no reason given"

    def stop(self) -> None:
        """Ends the server and waits for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


# --- in the server's process ------------------------------------------------------------------------


def make_server(folder: Path) -> Any:
    """A cheroot server, bound to a free port of loopback, that shares `folder` with everybody."""
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": {"root": str(folder)}},
            "simple_dc": {"user_mapping": {"*": True}},
            "http_authenticator": {"accept_basic": True, "accept_digest": True, "default_to_digest": True},
            "verbose": 1,
        }
    )
    server = wsgi.Server(("127.0.0.1", 0), app, numthreads=_THREADS)
    server.prepare()
    return server


def _end_with_stdin() -> None:
    # os.read and not sys.stdin: at exit the interpreter would wait for that object's lock.
    while os.read(0, 4096):
        pass
    os._exit(0)


def main(folder: str) -> None:
    server = make_server(Path(folder))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    sys.stdout.write(f"{server.bind_addr[1]}\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)  # nobody reads the pipes from here on
    os.dup2(null, 1)
    os.dup2(null, 2)
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1])
