"""The sources that ship: their folders, their modules, what they import."""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LINKED = ("attacks", "analysis", "experiments")
FOLDERS = {"advpure": "advpure"} | {f"advpure.{name}": name for name in LINKED}
_BY_NAME = ("import_module", "find_spec", "importorskip")


class Import(NamedTuple):
    """An import of a package that is neither Python's nor ours.

    Attributes:
        package: The name that is imported, without its submodules.
        at_once: Whether importing the module imports it: no function or `TYPE_CHECKING` around it.
        line: Where it stands.
    """

    package: str
    at_once: bool
    line: int


@functools.cache
def modules() -> dict[str, Path]:
    """Return module name to file, for everything that ships."""
    found = {}
    for name, folder in FOLDERS.items():
        base = ROOT / folder
        for path in base.rglob("*.py"):
            inner = path.relative_to(base)
            if any((base / part).is_symlink() for part in inner.parts[:1]):
                continue
            parts = inner.with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join([name, *parts])] = path
    return found


@functools.cache
def foreign_imports(source: str) -> tuple[Import, ...]:
    """Return the imports of other packages, those by `importlib` and `importorskip` included.

    Example:
        >>> [one.package for one in foreign_imports("import os, numpy.linalg, torch")]
        ['numpy', 'torch']
    """
    return tuple(_of(ast.parse(source), at_once=True))


def _of(node: ast.AST, at_once: bool) -> Iterator[Import]:
    names: list[str] = []
    match node:
        case ast.Import():
            names = [alias.name for alias in node.names]
        case ast.ImportFrom(module=str(module), level=0):
            names = [module]
        case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=[given, *_]):
            if called in _BY_NAME:
                names = _constant(given)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            at_once = False
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            at_once = False
    for name in names:
        package = name.partition(".")[0]
        if package not in sys.stdlib_module_names and package != "advpure":
            yield Import(package, at_once, getattr(node, "lineno", 0))
    for child in ast.iter_child_nodes(node):
        yield from _of(child, at_once)


def _constant(given: ast.expr) -> list[str]:
    """Return the texts that an argument may be, as far as they are written out."""
    match given:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if "." in text:
            return [text]
        case ast.IfExp():
            return [*_constant(given.body), *_constant(given.orelse)]
    return []
