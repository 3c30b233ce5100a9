"""The table of allowed imports: the tree is the architecture, and imports go downward only.

    surface    cli, commands, config, control, mount ...      people, files, processes
    fuse       the kernel side; the only user of pyfuse3
    fs         what a mounted share is: inodes, caches, write-back
    dav        what the wire says: usable alone
    errors     the vocabulary of failure, known to all
    demo       a server for trying out; knows nothing of davfs

An import counts wherever it stands: inside a function or under TYPE_CHECKING it ties two modules together
just the same. A failure here means that the design changes. Move the code to the layer that owns the noun,
pass the value down, or send it up through a channel; and if the table is wrong, change it with an ADR.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).parents[2] / "davfs"


@dataclass(frozen=True)
class Layer:
    modules: frozenset[str]  # first names below davfs
    may_import: frozenset[str]  # other layers
    libraries: frozenset[str]  # beyond the standard library
    why: str


def _layer(modules: str, may_import: str, libraries: str, why: str) -> Layer:
    return Layer(frozenset(modules.split()), frozenset(may_import.split()), frozenset(libraries.split()), why)


_LAYERS = {
    "errors": _layer("errors", "", "", "everyone knows the errors, so they can know nobody"),
    "dav": _layer(
        "dav",
        "errors",
        "httpx httptools spnego cryptography trio lxml",
        "the wire is usable alone: no inodes, no caches",
    ),
    "fs": _layer(
        "fs", "errors dav", "trio cachetools", "a share runs without a kernel, and asks dav for the wire"
    ),
    "fuse": _layer("fuse", "errors fs", "pyfuse3 trio", "a thin adaptor: unpack, call one method, pack"),
    "demo": _layer("demo", "", "wsgidav cheroot", "the demo is one more server: it must not know davfs"),
    "surface": _layer(
        "__init__ __main__ answers cli commands config connections control credentials daemon desktop"
        " exitcodes holder logins logs mount mountpoint notify options profiles secret service shutdown",
        "errors dav fs fuse demo",
        "httpx trio rich keyring",
        "pyfuse3 is only known to davfs/fuse.py; lxml and the caches belong to the layers below",
    ),
}  # fmt: skip

# Narrower than the layer: these imports belong to one module each.
_ONLY = {
    "davfs.fuse": {"davfs.mount"},
    "davfs.mount": {"davfs.commands.mount", "davfs.cli"},
    "davfs.demo": {"davfs.commands.demo", "davfs.cli"},
    "pyfuse3": {"davfs.fuse"},
}
# The frozen values of the wire (paths, tags, quota) go up through the layers as they are.
_VALUES = {"davfs.dav.resource": {"fs", "fuse", "surface"}}
_NEVER = {
    "asyncio": "trio is the one event loop",
    "requests": "httpx is the one HTTP client",
    "multiprocessing": "threads and trio; a forked trio loop is undefined",
}
_EMPTY_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "core", "base"}


def _name(path: Path) -> str:
    parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_name(path): path for path in sorted(_PACKAGE.rglob("*.py"))}


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """The modules one import statement names; `from davfs import control` names davfs.control."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base]).rstrip(".")
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            yield whole if whole in _MODULES else base


@cache
def _imports(module: str) -> dict[str, int]:
    """What `module` imports, anywhere in its text, with the line."""
    path = _MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        for name in _imported(node, package):
            found.setdefault(name, getattr(node, "lineno", 0))
    return found


def _layer_of(module: str) -> str | None:
    first = module.split(".")[1] if "." in module else "__init__"
    return next((name for name, layer in _LAYERS.items() if first in layer.modules), None)


def _objection(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`; None if it may."""
    own = _layer_of(module)
    layer = _LAYERS[own or "errors"]
    top = imported.partition(".")[0]
    if imported in _ONLY and module not in _ONLY[imported]:
        return f"only {', '.join(sorted(_ONLY[imported]))} may import {imported}"
    if top in _NEVER:
        return _NEVER[top]
    if top == "davfs":
        other = _layer_of(imported)
        allowed = other == own or other in layer.may_import or own in _VALUES.get(imported, ())
    else:
        allowed = top in sys.stdlib_module_names or top in layer.libraries
    return None if allowed else layer.why


@pytest.mark.parametrize("module", _MODULES)
def test_imports_go_downward_only(module: str) -> None:
    """A module imports its own layer, the layers named below it, and its layer's libraries; nothing else."""
    assert _layer_of(module), (
        f"{module} belongs to no layer: name it in the table of this test, where it belongs"
    )
    objections = [
        f"{_MODULES[module]}:{line}: {module} ({_layer_of(module)}) imports {imported}: {why}"
        for imported, line in _imports(module).items()
        if (why := _objection(module, imported))
    ]
    assert not objections, "\n".join(["", *objections, "", __doc__ or ""])


def _cycle_from(module: str, trail: tuple[str, ...], done: set[str]) -> tuple[str, ...] | None:
    if module in trail:
        return (*trail[trail.index(module) :], module)
    if module in done:
        return None
    for imported in _imports(module):
        if imported in _MODULES and imported != module:
            found = _cycle_from(imported, (*trail, module), done)
            if found:
                return found
    done.add(module)
    return None


def test_there_are_no_import_cycles() -> None:
    """No module reaches itself through imports, be they for types only or inside a function."""
    done: set[str] = set()
    for module in _MODULES:
        cycle = _cycle_from(module, (), done)
        assert not cycle, (
            f"import cycle: {' -> '.join(cycle or ())}\n"
            "Two modules that need each other are one module, or lack a third that both need."
        )


def test_modules_are_named_for_what_they_own() -> None:
    """No module is called util, common or manager: such a name owns nothing and attracts everything."""
    empty = [module for module in _MODULES if module.rpartition(".")[2] in _EMPTY_NAMES]
    assert not empty, f"name these after a noun of the glossary in docs/ARCHITECTURE.md: {empty}"


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("davfs.dav.client", "davfs.fs.tree"),
        ("davfs.dav.client", "pyfuse3"),
        ("davfs.fs.tree", "httpx"),
        ("davfs.fs.tree", "pyfuse3"),
        ("davfs.fs.tree", "davfs.config"),
        ("davfs.fuse", "davfs.dav.client"),
        ("davfs.mount", "pyfuse3"),
        ("davfs.demo", "davfs.errors"),
        ("davfs.errors", "davfs.dav.resource"),
        ("davfs.control", "asyncio"),
    ],
)
def test_the_table_objects(module: str, imported: str) -> None:
    """The imports that the design forbids are refused by the table: the test itself works."""
    assert _objection(module, imported)
