"""Check the arguments of public functions by their annotations, where they enter.

`checked` wraps a function: every argument that is given must be of the kind that its annotation
names, or the call is refused in one line before anything is computed. Numbers, texts and choices
follow `advpure.base.validation`, ranges in the annotation included; tensors are dense and hold
values; arrays hold real numbers; sequences and mappings are checked element by element.

The packages `advpure`, `advpure.analysis` and `advpure.analysis.certification` wrap the functions
that they offer. Calls from module to module are not wrapped and cost nothing. Attacks are not
wrapped: the registry and the package offer the same objects, which check their own input.
"""

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import numpy.typing as npt

from advpure.base.errors import BadInput
from advpure.base.validation import check_value, shown

F = TypeVar("F", bound=Callable[..., Any])

_SCALARS = (bool, int, float, str)
_SEQUENCES = (
    list,
    tuple,
    collections.abc.Sequence,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.Container,
)
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    types.NoneType: "None",
}


def checked(function: F) -> F:
    """Wrap a function, or the ``__init__`` of a class, so that its arguments are checked.

    Args:
        function: A function with annotations; or a class, which is returned itself.

    Returns:
        A function that refuses with `BadInput` what its annotations do not admit. Numbers of NumPy
        reach the function as plain ones, and texts such as 1/4 as numbers where a number is taken.

    Example:
        >>> @checked
        ... def scale(x: float, names: Sequence[str] = ()) -> float:
        ...     return 2 * x
        >>> scale(np.float64(0.5))
        1.0
        >>> scale(0.5, names=["a", 3])
        Traceback (most recent call last):
        ...
        advpure.BadInput: names[1] 3 is not a text; write it in quotes
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)
    named = [
        name
        for name, one in signature.parameters.items()
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and name != "self"
    ]

    @functools.wraps(function)
    def call(*given: Any, **keywords: Any) -> Any:
        try:
            bound = signature.bind(*given, **keywords)
        except TypeError:
            return function(*given, **keywords)  # which says its name beside what is wrong
        hints = _hints(function)
        for name in named:
            if name in bound.arguments and name in hints:
                value = bound.arguments[name]
                bound.arguments[name] = admit(value, hints[name], name.replace("_", " "))
        return function(*bound.args, **bound.kwargs)

    return typing.cast(F, call)


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


def admit(value: Any, hint: Any, what: str) -> Any:
    """Return a value that an annotation admits, numbers and texts as plain ones.

    Raises:
        BadInput: for any other.
    """
    bare = _bare(hint)
    origin = get_origin(bare)
    if bare is str:
        return _only(isinstance(value, str), value, what, "is not a text", "write it in quotes")
    if bare in _SCALARS or origin is Literal:
        plain = check_value(value, hint, what)
        return value if type(value) in (int, float) else plain
    if bare == npt.ArrayLike:
        return _array(value, what)
    if np.ndarray in (bare, origin):
        _only(isinstance(value, np.ndarray), value, what, "is no array", "give np.asarray(...)")
        return _array(value, what)
    if origin in (Union, types.UnionType):
        return _one_of(value, get_args(bare), what)
    if bare is types.NoneType:
        return _only(value is None, value, what, "is not None", "leave it out")
    if origin is collections.abc.Callable:
        return _only(callable(value), value, what, "cannot be called", "give a function")
    if origin in _SEQUENCES:
        return _elements(value, get_args(bare), origin, what)
    if origin in (dict, collections.abc.Mapping):
        return _entries(value, get_args(bare), what)
    if getattr(bare, "_is_protocol", False):
        fits = callable(value) or "__call__" not in vars(bare)
        return _only(fits, value, what, "cannot be called", "give a function")
    if bare is not Any and isinstance(bare, type):
        return _instance(value, bare, what)
    return value  # Any, type variables: nothing that could be checked here


def _bare(kind: Any) -> Any:
    """Return an annotation without its ranges."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _only(fits: bool, value: Any, what: str, rule: str, fix: str) -> Any:
    if not fits:
        raise BadInput(f"{what} {shown(value)}", rule, fix)
    return value


def _one_of(value: Any, kinds: Sequence[Any], what: str) -> Any:
    """Admit a value of any of several kinds; else name the rule of the kind that it is nearest."""
    kinds = sorted(_members(kinds), key=_order)
    if value is None and types.NoneType in kinds:
        return None
    if Path in kinds and isinstance(value, str | Path):
        _check_path(value, what)
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    if len(kinds) == 1:
        return admit(value, kinds[0], what)
    near: BadInput | None = None
    for kind in kinds:
        try:
            return admit(value, kind, what)
        except BadInput as refused:
            if near is None and _is_near(value, kind):
                near = refused
    if near is not None:
        raise near
    if any(get_origin(kind) is collections.abc.Callable for kind in kinds):
        rule = "cannot be called"
    else:
        rule = "is of another kind"
    words = " or ".join(dict.fromkeys(_words(kind) for kind in kinds))
    raise BadInput(f"{what} {shown(value)}", rule, f"give {words}")


def _check_path(value: str | Path, what: str) -> None:
    """Refuse a path that no file system takes: longer names than 255 bytes, or a zero in them."""
    parts = [part.encode("utf-8", "surrogatepass") for part in Path(value).parts]
    longest = max(map(len, parts), default=0)
    fits = "\0" not in str(value) and longest <= 255
    _only(fits, value, what, "is no path", "use shorter names")


def _members(kinds: Sequence[Any]) -> list[Any]:
    """Return the kinds of a union; NumPy's ArrayLike, which is many of them, as an array."""
    if not any(getattr(get_origin(kind), "__name__", "") == "_SupportsArray" for kind in kinds):
        return list(kinds)
    others = [
        kind
        for kind in kinds
        if kind is types.NoneType or getattr(kind, "__module__", "").startswith("advpure")
    ]
    return [*others, npt.ArrayLike]


def _order(kind: Any) -> int:
    """Try texts before what texts may stand for, and whole numbers before others."""
    known = (str, int, float)
    bare = _bare(kind)
    return known.index(bare) if bare in known else len(known)


def _is_near(value: Any, kind: Any) -> bool:
    bare = _bare(kind)
    if isinstance(value, str):
        return bare is str or get_origin(bare) is Literal
    if isinstance(value, int | float | np.number):
        return bare in (int, float)
    if isinstance(value, list | tuple):
        return get_origin(bare) in _SEQUENCES
    concrete = isinstance(bare, type) and not getattr(bare, "_is_protocol", False)
    return concrete and bare is not Any and isinstance(value, bare)


def _words(kind: Any) -> str:
    bare = _bare(kind)
    if bare in _WORDS:
        return _WORDS[bare]
    if get_origin(bare) is Literal:
        return " or ".join(map(str, get_args(bare)))
    if bare == npt.ArrayLike or np.ndarray in (bare, get_origin(bare)):
        return "an array of numbers"
    if get_origin(bare) is collections.abc.Callable:
        return "a function"
    if get_origin(bare) in _SEQUENCES:
        return "a list"
    name = getattr(bare, "__name__", str(bare))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _array(value: Any, what: str) -> Any:
    try:
        kind = np.asarray(value).dtype.kind
    except Exception:  # tensors with a gradient, ragged lists and foreign objects fail in many ways
        kind = "O"
    return _only(kind in "biuf", value, what, "is no array of real numbers", "give numbers")


def _elements(value: Any, kinds: Sequence[Any], origin: Any, what: str) -> Any:
    """Admit a sequence, or another container, whose elements are of one kind, or of one each."""
    if origin not in (tuple, collections.abc.Sequence) and isinstance(value, set | frozenset):
        return value
    if isinstance(value, np.ndarray) and value.ndim:
        value = list(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadInput(f"{what} {shown(value)}", "is no list", "write [ ] around its values")
    if isinstance(value, range) or not kinds:
        return value
    each: Sequence[Any] = [kinds[0]] * len(value)
    if origin is tuple and not (len(kinds) == 2 and kinds[1] is Ellipsis):
        each, rule = kinds, f"does not have {len(kinds)} parts"
        _only(len(value) == len(kinds), value, what, rule, "give each")
    plain = [
        admit(one, kind, f"{what}[{index}]")
        for index, (one, kind) in enumerate(zip(value, each, strict=True))
    ]
    if all(old is new for old, new in zip(value, plain, strict=True)):
        return value
    return tuple(plain) if isinstance(value, tuple) else plain


def _entries(value: Any, kinds: Sequence[Any], what: str) -> Any:
    if not isinstance(value, Mapping):
        raise BadInput(f"{what} {shown(value)}", "is no mapping", "write { } with keys and values")
    if len(kinds) == 2:
        for key, entry in value.items():
            admit(key, kinds[0], f"{what}: key")
            admit(entry, kinds[1], f"{what}[{shown(key)}]")
    return value


def _instance(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise BadInput(f"{what} {shown(value)}", f"is no {kind.__name__}", f"give {_words(kind)}")
    if kind.__module__ == "torch" and kind.__name__ == "Tensor":
        _check_tensor(value, what)
    return value


def _check_tensor(tensor: Any, what: str) -> None:
    """Refuse a tensor that is not dense, or that has no values."""
    if str(tensor.layout) != "torch.strided":
        raise BadInput(f"{what} of layout {tensor.layout}", "is not dense", "call .to_dense()")
    if tensor.is_meta:
        raise BadInput(f"{what} on the device meta", "has no values", "give it on the cpu")
