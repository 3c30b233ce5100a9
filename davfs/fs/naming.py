"""Names that this server refuses, or keeps under another name, are refused before anything is stored.

Asked of every name that is about to be made: by create, mkdir and rename. What a server does to names is
known of those that were measured (`quirks`); whether another one decodes URLs twice is asked once, with one
PROPFIND, when the first name with "%41" in it comes along. Such a server (ASGIWebDAV) keeps "a%20b" as
"a b", which may be somebody's file.
"""

from __future__ import annotations

import errno
import os

from davfs.dav.client import Client
from davfs.dav.hrefs import decoded_again, shown
from davfs.dav.resource import DavPath
from davfs.errors import NotFound, PosixError, ProtocolError, UnstorableName


async def check_name(client: Client, path: DavPath) -> None:
    """Raises UnstorableName (EILSEQ), or what stands in the way of asking."""
    if not client.capabilities.stores_name(path.name):
        raise UnstorableName(f"{shown(path)}: this server does not keep such a name")
    if decoded_again(path).name != path.name and await _decodes_twice(client, path.parent):
        raise UnstorableName(f"{shown(path)}: this server would keep it as {shown(decoded_again(path))}")


async def check_folder(client: Client, path: DavPath) -> None:
    """Before MKCOL. rclone says 201 to it although the folder is there: programs take mkdir for a lock."""
    await check_name(client, path)
    if client.capabilities.makes_folders_again and await client.has(path):
        raise PosixError(errno.EEXIST, f"{shown(path)} is there")


async def _decodes_twice(client: Client, folder: DavPath) -> bool:
    """`folder` is there: is it also there by the name with its first byte encoded?"""
    server = client.capabilities
    if server.decodes_once:
        return False
    if server.decodes_twice is None and folder.parts:
        first, *rest = os.fsencode(folder.name)
        coded = folder.parent.child(f"%{first:02X}{os.fsdecode(bytes(rest))}"[:200])
        try:
            await client.stat(coded)
        except (NotFound, ProtocolError) as error:
            twice = client.capabilities.decodes_twice or isinstance(error, ProtocolError)
        else:
            twice = True
        client.capabilities = client.capabilities.learned_decoding(twice=twice)
    return bool(client.capabilities.decodes_twice)
