"""Whatever a public function is given, it returns or refuses in one line.

Each call that works gets one or two of its arguments, those with a default too, replaced by a value
of the wrong kind, range, shape or dtype. What may happen: a result, a `BadInput` or `MissingExtra`
of one line, or work on what was taken until the budget of an example is spent. Every other
exception is a fault.
"""

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import EACH, Enough, budget
from hypothesis import given, settings
from hypothesis import strategies as st
from lines import LINES
from public_calls import MODULES, WHAT_IS_RETURNED, Calls

from advpure.base.errors import BadInput, MissingExtra
from advpure.cli import run
from advpure.runs.records import RecordConflict

pytestmark = pytest.mark.slow

FUZZ = settings(EACH, max_examples=40)

CASES = [
    pytest.param(getattr(module, name), calls[name], id=f"{prefix}.{name}")
    for prefix, (module, calls) in MODULES.items()
    for name in calls
]


class Theirs(Exception):
    """What a function that was given raises by itself: passed on."""


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


def _failing(*given: Any, **named: Any) -> Any:
    raise Theirs


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


MAKERS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "np.True_": lambda: np.True_,
    **{str(n): (lambda n=n: n) for n in (-1, 0, 1, 2, 3, 2**31, 2**63, 2**64, 10**30)},
    **{
        str(x): (lambda x=x: x)
        for x in (-0.5, 0.5, 2.0, 1e-9, 1e-320, 1e300, math.inf, -math.inf, math.nan)
    },
    "1j": lambda: 1j,
    "np.int64(2)": lambda: np.int64(2),
    "np.float32(nan)": lambda: np.float32("nan"),
    **{repr(s): (lambda s=s: s) for s in ("", "x", "1", "8/255", "1/0", "nan", "\u00b2", "a\nb")},
    "'x'*5000": lambda: "x" * 5000,
    "b'x'": lambda: b"x",
    "'\\0'": lambda: "\0",
    "Path('missing/x')": lambda: Path("missing/x"),
    "[]": lambda: [],
    "[0]": lambda: [0],
    "[1, 1]": lambda: [1, 1],
    "[0.5, nan]": lambda: [0.5, math.nan],
    "['x']": lambda: ["x"],
    "[None]": lambda: [None],
    "[True, False]": lambda: [True, False],
    "[10**30]": lambda: [10**30],
    "nested 2000 deep": lambda: _nested(2000),
    "()": lambda: (),
    "{}": lambda: {},
    "{1: 2}": lambda: {1: 2},
    "{'a': nan}": lambda: {"a": math.nan},
    "set": lambda: {1, 2},
    "object()": object,
    "unprintable": _Unprintable,
    "int": lambda: int,
    "lambda x: x": lambda: lambda x: x,
    "a function that fails": lambda: _failing,
    "lambda x: None": lambda: lambda *a, **k: None,
    "iterator": lambda: iter([1, 2]),
    "np.array([])": lambda: np.array([]),
    "np.zeros((2, 3))": lambda: np.zeros((2, 3)),
    "np.array(['a'])": lambda: np.array(["a"]),
    "np.array([nan, 1])": lambda: np.array([math.nan, 1.0]),
    "np.array(object)": lambda: np.array([object()]),
    "torch.zeros(())": lambda: torch.zeros(()),
    "torch.zeros(0)": lambda: torch.zeros(0),
    "torch.tensor([1, 2])": lambda: torch.tensor([1, 2]),
    "torch.tensor([-1, 99])": lambda: torch.tensor([-1, 99]),
    **{
        f"images {what}": make
        for what, make in {
            "half": lambda: torch.full((2, 1, 8, 8), 0.5, dtype=torch.float16),
            "bfloat16": lambda: torch.full((2, 1, 8, 8), 0.5, dtype=torch.bfloat16),
            "double": lambda: torch.full((2, 1, 8, 8), 0.5, dtype=torch.float64),
            "integer": lambda: torch.ones(2, 1, 8, 8, dtype=torch.uint8),
            "bool": lambda: torch.ones(2, 1, 8, 8, dtype=torch.bool),
            "complex": lambda: torch.full((2, 1, 8, 8), 0.5 + 0j),
            "nan": lambda: torch.full((2, 1, 8, 8), math.nan),
            "of 255": lambda: torch.full((2, 1, 8, 8), 255.0),
            "of another size": lambda: torch.full((2, 1, 6, 10), 0.5),
            "of three channels": lambda: torch.full((2, 3, 8, 8), 0.5),
            "without a batch": lambda: torch.full((1, 8, 8), 0.5),
            "none": lambda: torch.zeros(0, 1, 8, 8),
            "of no pixels": lambda: torch.zeros(2, 1, 0, 0),
            "sparse": lambda: torch.full((2, 1, 8, 8), 0.5).to_sparse(),
            "meta": lambda: torch.zeros(2, 1, 8, 8, device="meta"),
            "with a gradient": lambda: torch.full((2, 1, 8, 8), 0.5, requires_grad=True),
            "expanded": lambda: torch.full((1, 1, 1, 1), 0.5).expand(2, 1, 8, 8),
            "in numpy": lambda: np.full((2, 1, 8, 8), 0.5),
        }.items()
    },
}
"""What is given instead, by a name that a failure can show."""


def names(function: Any, base: dict[str, Any]) -> list[str]:
    """Return the arguments that can be replaced: those that are given, and those with a default."""
    taken = inspect.signature(function).parameters.values()
    by_name = [one.name for one in taken if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    return list(dict.fromkeys([*base, *by_name]))


def call(function: Any, arguments: dict[str, Any]) -> None:
    """Call a function, and take the first of what a generator yields."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = function(**arguments)
        if isinstance(result, Iterator):
            list(itertools.islice(result, 3))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder with the runs and files that the calls name."""
    folder = tmp_path_factory.mktemp("functions") / "a" / "b"
    folder.mkdir(parents=True)
    heads = ("idx", "label", "predict", "radius", "correct", "time")
    row = ("0", "1", "1", "0.2", "1", "-")
    (folder / "list.tsv").write_text("\n".join("\t".join(each) for each in (heads, row)) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("HOME", "XDG_CACHE_HOME", "ADVPURE_DATA"):
            patch.setenv(name, str(folder / "home"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        kept = (
            ("attack", ["--save-images"]),
            ("certify", []),
            ("predict", ["--out", "parts/predicted"]),
        )
        for verb, more in kept:
            assert run([verb, *LINES[verb][0].split(), *more]) == 0
        yield folder


def test_every_public_name_is_called_or_returned() -> None:
    for module, calls in MODULES.values():
        assert set(module.__all__) - WHAT_IS_RETURNED == set(calls)


@pytest.mark.parametrize(("function", "base"), CASES)
def test_the_calls_work(function: Any, base: Calls, scratch: Path) -> None:
    call(function, dict(base()))  # type: ignore[operator]


@pytest.mark.parametrize(("function", "base"), CASES)
def test_a_function_returns_or_refuses_in_one_line(
    function: Any, base: Calls, scratch: Path
) -> None:
    replaceable = names(function, dict(base()))  # type: ignore[operator]
    if not replaceable:
        return
    one = st.tuples(st.sampled_from(replaceable), st.sampled_from(sorted(MAKERS)))

    @FUZZ
    @given(st.lists(one, min_size=1, max_size=2))
    def check(changes: list[tuple[str, str]]) -> None:
        arguments = {**base()}  # type: ignore[operator]
        arguments |= {name: MAKERS[what]() for name, what in changes}
        try:
            with budget():
                call(function, arguments)
        except (BadInput, MissingExtra, RecordConflict) as refused:
            said = str(refused)
            assert "\n" not in said, changes
            assert len(said) < 2000, changes
        except (Enough, Theirs):
            pass

    check()
