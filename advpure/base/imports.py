"""Code of users by name: ``package.module:attribute`` and ``file.py:attribute``.

Importing runs the code, so only what the user typed is imported here; who reads a name out of
somebody's records does it inside `untrusted`. What identifies code in records is the SHA-256 of its
file, of the files beside it that it imports, and of theirs; an installed library is identified by
its version. Modules are imported, and factories are
called, under seed 0 of the global generators, so that weights drawn at construction are the same in
every session; the generators are given back as they were.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from advpure.base.errors import BadInput
from advpure.base.validation import shown

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=True)
_ALLOWED: ContextVar[bool] = ContextVar("allowed", default=False)


@dataclass(frozen=True)
class Code:
    """An object of a user's code.

    Attributes:
        name: What was typed, or the name of the object.
        value: The object.
        sha256: Digest of the source that it stands in.
        module: Name of that module in `sys.modules`.
    """

    name: str
    value: Any
    sha256: str
    module: str


def names_code(text: object) -> bool:
    """Return whether a text is written as ``file.py:attribute`` or ``package.module:attribute``.

    Example:
        >>> names_code("mine.py:Purifier"), names_code("a.b:c"), names_code("ddpm:model-1.ckpt")
        (True, True, False)
    """
    if not isinstance(text, str):
        return False
    place, colon, attribute = text.rpartition(":")
    if not colon or not _DOTTED.fullmatch(attribute):
        return False
    return place.endswith(".py") or _DOTTED.fullmatch(place) is not None


def load_code(text: str, what: str) -> Code:
    """Import what a text names.

    Args:
        text: ``package.module:attribute`` or ``file.py:attribute``.
        what: What it is to be, for messages.

    Raises:
        BadInput: for a file, module or attribute that is not there, and for code that fails.

    Example:
        >>> load_code("math:sqrt", "function").value(9.0)
        3.0
        >>> load_code("math:sqr", "function")
        Traceback (most recent call last):
        ...
        advpure.BadInput: function math:sqr names no attribute 'sqr' of math; did you mean sqrt?
    """
    if not names_code(text):
        fix = "write file.py:attribute or package.module:attribute"
        raise BadInput(f"{what} {shown(text)}", "names no code", fix)
    if not _TRUSTED.get():
        rule = "is code that somebody's records name, and would run"
        raise BadInput(f"{what} {text}", rule, "read it, then write advpure --trust VERB ...")
    place, _, attribute = text.rpartition(":")
    subject = f"{what} {text}"
    module = (_from_file if place.endswith(".py") else _from_package)(place, subject)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise _no_attribute(subject, part, value, place)
        value = getattr(value, part)
    return Code(text, value, source_sha256(module), module.__name__)


def as_code(code: Code) -> Code:
    """Return code as it is: the adapter of a registry whose users build it themselves."""
    return code


def as_function(code: Code) -> Any:
    """Return code that is a function: the adapter of a registry of functions.

    Raises:
        BadInput: for what cannot be called.
    """
    if not callable(code.value):
        raise BadInput(
            code.name, f"is of type {type(code.value).__name__}, no function", "name one"
        )
    return code.value


def code_of(value: object) -> Code:
    """Describe an object that was passed as it is, by `fingerprint`."""
    from advpure.base.fingerprint import fingerprint

    thing: Any = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    name = getattr(thing, "__name__", type(value).__name__)
    return Code(name, value, fingerprint(value), getattr(thing, "__module__", ""))


def trust_records(allowed: bool = True) -> None:
    """Let code run that is named in records, see `untrusted`."""
    _ALLOWED.set(allowed)


@contextmanager
def untrusted(allowed: bool = False) -> Iterator[None]:
    """Refuse to run code that is named inside, unless this or `trust_records` allows it.

    Example:
        >>> with untrusted():
        ...     load_code("math:sqrt", "function")
        Traceback (most recent call last):
        ...
        advpure.BadInput: function math:sqrt is code that somebody's records name, and would run; \
read it, then write advpure --trust VERB ...
    """
    token = _TRUSTED.set((allowed or _ALLOWED.get()) and _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


@contextmanager
def seeded(seed: int = 0, device: str | None = None) -> Iterator[None]:
    """Set the global generators of torch, NumPy and Python inside; give them back afterwards.

    Args:
        seed: Seed of all three, 0 <= seed < 2**63; NumPy takes the lower 32 bits.
        device: A CUDA device whose generator is set too.
    """
    import random

    import numpy as np
    import torch

    cuda = [torch.device(device)] if device is not None and device.startswith("cuda") else []
    there, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(seed)
            for each in cuda:
                with torch.cuda.device(each):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(there)  # noqa: NPY002
        random.setstate(python)


_DTYPES: dict[str, Any] = {}
"""Default dtype of torch that code of a module has set, by the module's name."""


@contextmanager
def contained(module: str) -> Iterator[None]:
    """Run code of a module under the default dtype of torch that it has set itself.

    That holds in its own later calls and nowhere else. A default device that it sets, and gradients
    that it turns off or on for good, are as before afterwards.

    Args:
        module: The module's name; nothing is remembered without one.

    Example:
        >>> import torch
        >>> with contained("somebody"):
        ...     torch.set_default_dtype(torch.float64)
        >>> torch.ones(1).dtype
        torch.float32
        >>> with contained("somebody"):
        ...     torch.ones(1).dtype
        torch.float64
    """
    import torch

    before, device = torch.get_default_dtype(), torch.get_default_device()
    is_recording = torch.is_grad_enabled()
    inside = _DTYPES.get(module, before)
    torch.set_default_dtype(inside)
    try:
        yield
    finally:
        after = torch.get_default_dtype()
        if after != inside and module:
            _DTYPES[module] = after
        torch.set_default_dtype(before)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        if torch.is_grad_enabled() != is_recording:
            torch.set_grad_enabled(is_recording)


def _from_file(place: str, subject: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, _python_files(path.parent), n=1)
        hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path"
        raise BadInput(subject, f"names no file, there is no {place}", hint)
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode() + _digest(path).encode()).hexdigest()
    name = f"{OWN}{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    beside, before = str(path.parent), set(sys.modules)
    _forget_helpers(path.parent)
    sys.path.insert(0, beside)
    try:
        with seeded(), contained(name):
            # Compiled here: a cached file of bytes may be older than an edit of the same second.
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, BadInput) or not isinstance(error, Exception):
            raise
        raise _unimportable(subject, path, error) from error
    finally:
        sys.path.remove(beside)
        if beside not in sys.path:
            sys.path.append(beside)  # for imports within functions
    for helper in set(sys.modules) - before:
        file = getattr(sys.modules[helper], "__file__", None)
        if file is not None and Path(file).is_relative_to(path.parent):
            _HELPERS[helper] = (Path(file), _file_sha256(Path(file)))
    return module


_HELPERS: dict[str, tuple[Path, str]] = {}
"""Modules that stand beside files that were imported, by name: the file, and what it held."""


def _forget_helpers(folder: Path) -> None:
    """Let modules be imported anew that stand beside another file, or were edited."""
    for name, (path, digest) in list(_HELPERS.items()):
        other = folder.joinpath(*name.split(".")).with_suffix(".py")
        is_hidden = other.is_file() and other != path
        if is_hidden or not path.is_file() or _file_sha256(path) != digest:
            del _HELPERS[name]
            sys.modules.pop(name, None)
    importlib.invalidate_caches()


OWN = "advpure_own_"
"""How the names of modules begin that were files."""


@contextmanager
def imported_anew() -> Iterator[None]:
    """Import code of files again inside, with nothing that it remembered; then take back the old.

    Modules of packages stay as they are.
    """
    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if name.startswith(OWN)}
    kept |= {name: sys.modules.pop(name) for name in [*_HELPERS] if name in sys.modules}
    try:
        yield
    finally:
        sys.modules.update(kept)


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _from_package(place: str, subject: str) -> ModuleType:
    try:
        with seeded(), contained(place):
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{place}.".startswith(f"{error.name}."):
            rule = f"names no module, there is no {error.name}"
            raise BadInput(subject, rule, "check the spelling, or name a file.py") from None
        raise _unimportable(subject, None, error) from error
    except BadInput:
        raise
    except Exception as error:
        raise _unimportable(subject, None, error) from error


def _unimportable(subject: str, path: Path | None, error: Exception) -> BadInput:
    """Say why code of a user's failed while it was imported, with the line."""
    return BadInput(subject, f"cannot be imported ({explain(error, path)})", "mend it")


def explain(error: BaseException, path: Path | None = None) -> str:
    """Return an error's type, text and line, the last one in a file where that is given.

    Example:
        >>> explain(KeyError("x"))
        "KeyError: 'x'"
    """
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"SyntaxError: {error.msg}, line {error.lineno}"
    line, trace = None, error.__traceback__
    while trace is not None:
        if path is not None and trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    words = " ".join(str(error).split())
    where = "" if line is None else f", line {line}"
    return f"{type(error).__name__}: {words[:200]}{where}"


def _no_attribute(subject: str, part: str, holder: Any, place: str) -> BadInput:
    public = [each for each in dir(holder) if not each.startswith("_")]
    near = difflib.get_close_matches(part, public, n=1)
    if near:
        hint = f"did you mean {near[0]}?"
    else:
        own = [
            each
            for each in public
            if getattr(getattr(holder, each), "__module__", None)
            == getattr(holder, "__name__", None)
        ]
        hint = f"there are {', '.join(own[:8])}" if own else "check the spelling"
    return BadInput(subject, f"names no attribute {part!r} of {place}", hint)


def _python_files(folder: Path) -> list[str]:
    return [each.name for each in folder.glob("*.py")] if folder.is_dir() else []


def source_sha256(module: ModuleType) -> str:
    """Return the digest of a module's file and of the files of its own that it imports.

    Those are, of a file, the ones beside it, and of a package's module, the ones of the package. Of
    an installed library, and of this one, it is the digest of the module's name and the version.
    """
    file = getattr(module, "__file__", None)
    name = module.__name__
    top = name.partition(".")[0]
    if file is None or not file.endswith(".py"):
        version = getattr(module, "__version__", "")
        return hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    path = Path(file).resolve()
    if top == _OURS or _is_installed(path):
        version = _version_of(top)
        if version:
            return hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    return _digest(path, name)


_OURS = "advpure"


def _is_installed(path: Path) -> bool:
    """Return whether a file belongs to Python or to a package that was installed into it."""
    places = {sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(path.is_relative_to(Path(each).resolve()) for each in places) or bool(
        {"site-packages", "dist-packages"}.intersection(path.parts)
    )


def _version_of(top: str) -> str:
    """Return the version of an installed package, without the build (``+cu128``), or nothing."""
    if top in sys.stdlib_module_names:
        return platform.python_version()
    version = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(version, str):
        names = importlib.metadata.packages_distributions().get(top, [])
        version = importlib.metadata.version(names[0]) if names else ""
    return version.partition("+")[0]


def _digest(path: Path, module: str = "") -> str:
    top, _, rest = module.partition(".")
    depth = rest.count(".") + 1 if rest else 0
    if path.name == "__init__.py" and rest:
        depth += 1
    is_file = not module or module.startswith("advpure_own_")
    root = path.parent if is_file else path.parents[depth]
    files = sorted(_reached(path, root, None if is_file else top))
    parts = [f"{each.relative_to(root).as_posix()} {_file_sha256(each)}" for each in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _reached(path: Path, root: Path, package: str | None) -> set[Path]:
    """Return a file and the files below a root that its import statements lead to.

    Args:
        path: The file.
        root: Folder from which the file imports.
        package: Where given, only files of this package count. Where not, all below the root do but
            those of installed libraries and of this one, which may stand beside the file too.
    """
    found: set[Path] = set()
    todo = [path]
    while todo:
        here = todo.pop()
        if here in found:
            continue
        found.add(here)
        for name in _imported(here, root):
            top = name.split(".")[0]
            if package is None and top != _OURS:
                todo += [each for each in _files_of(name, root) if not _is_installed(each)]
            elif top == package:
                todo += _files_of(name, root)
    return found


def _imported(path: Path, root: Path) -> Iterator[str]:
    """Yield the dotted names, from the root, of what a file imports."""
    yield from _named_in(path.read_bytes(), path.relative_to(root).parts[:-1])


@lru_cache(maxsize=64)
def _named_in(source: bytes, here: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dotted names that a source imports; none where it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            if base:
                names.append(base)
            names += [f"{base}.{each.name}".strip(".") for each in node.names]
    return tuple(names)


def _files_of(name: str, root: Path) -> list[Path]:
    """Return the file of a dotted name below a root, and those of the packages around it."""
    parts = name.split(".")
    files = []
    for count in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:count])
        files += [stem.with_name(f"{stem.name}.py"), stem / "__init__.py"]
    return [each for each in files if each.is_file()]
