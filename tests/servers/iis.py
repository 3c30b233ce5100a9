"""IIS WebDAV and SharePoint, scripted: a real HTTP server on loopback that answers as they are documented.

Neither runs outside Windows, so what davfs does with them is tested on this: what runs in the child is
iis_child.py, which knows nothing of davfs. `kind` is "iis" or "sharepoint"; the rest are switches:

- `max_body`: maxAllowedContentLength, 404 (404.13) for more, before the body;
- `double_escaping`: allowDoubleEscaping; without it a '+' or '%' in a name is 404 (404.11);
- `version`: what SharePoint says it is; `rewrites`: it writes into office files;
- `login`: "redirect" to a page of the site, "online" to another host, "forms": 403 with the headers for it;
- `flags`: "1" for 1/0, "true" for True/False in iscollection and ishidden; `resourcetype`: is there one;
- `fat`: kilobytes of further headers in each answer.

The kind "plain" is a server that nobody knows, for what is learned of names: `form` is the Unicode form
that it gives them, `strip` what it cuts off their ends, `fold_case` whether case is no difference, `echo`
whether PROPFIND answers in the words of the question.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from tests.servers.base import Server

Kind = Literal["iis", "sharepoint", "plain"]
MAX_BODY = 30_000_000  # as IIS is shipped


class Iis(Server):
    name = "iis"

    def __init__(
        self,
        kind: Kind = "iis",
        *,
        max_body: int = MAX_BODY,
        double_escaping: bool = False,
        version: str = "16.0.0.10417",
        rewrites: bool = True,
        login: Literal["", "redirect", "online", "forms"] = "",
        flags: Literal["1", "true"] = "1",
        resourcetype: bool = True,
        fat: int = 0,
        form: Literal["", "NFC", "NFD"] = "",
        strip: str = "",
        fold_case: bool | None = None,
        echo: bool | None = None,
    ) -> None:
        super().__init__()
        self.name = kind
        self._settings = {
            "kind": kind,
            "max_body": max_body,
            "double_escaping": double_escaping,
            "version": version,
            "rewrites": rewrites,
            "login": login,
            "flags": flags,
            "resourcetype": resourcetype,
            "fat": fat,
            "form": form,
            "strip": strip,
            "fold_case": kind != "plain" if fold_case is None else fold_case,
            "echo": kind == "iis" if echo is None else echo,
        }

    def _command(self) -> list[str]:
        settings = self.folder / "iis.json"
        places = {"root": self.root, "access_log": self.access_log, "untranslated": self._untranslated}
        texts = {name: str(path) for name, path in places.items()}
        settings.write_text(json.dumps({**self._settings, **texts, "port": self.port}))
        return [sys.executable, str(Path(__file__).with_name("iis_child.py")), str(settings)]

    @property
    def _untranslated(self) -> Path:
        return self.folder / "untranslated.log"

    def untranslated(self) -> list[str]:
        """The methods that came without `Translate: f`."""
        return self._untranslated.read_text().split() if self._untranslated.exists() else []


class SharePoint(Iis):
    """What the tables of servers have in a column of its own."""

    def __init__(self) -> None:
        super().__init__("sharepoint")
