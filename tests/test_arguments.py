"""The arguments of public functions: what their annotations admit reaches them, nothing else."""

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from advpure import analysis
from advpure.analysis import certification
from advpure.base.arguments import admit, checked
from advpure.base.errors import BadInput

Ids = Tensor | Sequence[int]


@pytest.mark.parametrize(
    ("value", "hint", "reached"),
    [
        (np.int64(3), int, 3),
        (np.float32(0.25), float, 0.25),
        ("1/4", float, 0.25),
        ("1/4", str | float, "1/4"),
        (8, str | float, 8),
        (None, int | None, None),
        ([np.int64(1), 2], Sequence[int], [1, 2]),
        ((1, 2), Ids, (1, 2)),
        ((np.float64(0.5), "a"), tuple[float, str], (0.5, "a")),
        ({0.25: [1, 2]}, Mapping[float, Sequence[int]], {0.25: [1, 2]}),
        ("a", Literal["a", "b"] | None, "a"),
        (range(3), Sequence[int], range(3)),
        ({1, 2}, Container[int], {1, 2}),
        (Path("x"), str | Path, Path("x")),
        (0.5, Annotated[float, Gt(0), Lt(1)], 0.5),
    ],
)
def test_what_fits_reaches_the_function_as_plain_values(
    value: Any, hint: Any, reached: object
) -> None:
    found = admit(value, hint, "x")
    assert found == reached
    assert type(found) is type(reached)


@pytest.mark.parametrize(
    ("value", "hint", "told"),
    [
        (True, int, "x True is not a whole number"),
        (1.5, int | None, "x 1.5 is not a whole number"),
        (float("nan"), str | float, "x nan is not finite"),
        (0, Annotated[float, Gt(0)], "x 0 is not above 0"),
        (-1, Annotated[int, Ge(0)] | None, "x -1 is not a whole number of 0 or more"),
        ("a\0b", str | Path, "is no path"),
        ("c", Literal["a", "b"] | None, "x 'c' is not known"),
        ("abc", Sequence[str], "x 'abc' is no list"),
        ([1, "a"], Sequence[int], "x[1] 'a' is not a whole number"),
        ((1, 2, 3), tuple[int, int], "x (1, 2, 3) does not have 2 parts"),
        ([1], Mapping[int, int], "x [1] is no mapping"),
        ({1: "a"}, Mapping[int, int], "x[1] 'a' is not a whole number"),
        (3, Callable[[Tensor], Tensor], "x 3 cannot be called"),
        ([[1.0], [1.0, 2.0]], npt.ArrayLike, "is no array of real numbers"),
        (np.array(["a"]), npt.ArrayLike, "is no array of real numbers"),
        (np.ones(2), Tensor, "is no Tensor"),
        (object(), Ids, "is of another kind; give a Tensor or a list"),
        (torch.ones(2, 2).to_sparse(), Tensor, "is not dense"),
        (torch.ones(2, device="meta"), Tensor, "has no values"),
        (3, analysis.SnrSettings, "x 3 is no SnrSettings; give a SnrSettings"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(value: Any, hint: Any, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        admit(value, hint, "x")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_are_not_checked_and_other_keywords_pass() -> None:
    @checked
    def take(x: int, y: Annotated[int, Ge(1)] = 0, **more: Any) -> tuple[Any, ...]:
        return x, y, more

    assert take(1, z="a") == (1, 0, {"z": "a"})
    with pytest.raises(BadInput, match="y 0 is not a whole number of 1 or more"):
        take(1, y=0)
    with pytest.raises(TypeError, match=r"take\(\) missing 1 required"):
        take()  # type: ignore[call-arg]


def test_a_class_is_checked_where_it_is_made() -> None:
    @checked
    class Kept:
        def __init__(self, count: Annotated[int, Ge(1)]) -> None:
            self.count = count

    assert Kept(np.int8(2)).count == 2  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="count 0 is not a whole number of 1 or more"):
        Kept(0)


def test_the_public_functions_are_checked() -> None:
    with pytest.raises(BadInput, match="window 'x' is not a whole number"):
        analysis.ssim(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), window="x")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="bound 'x' is not a number"):
        certification.radius_of("x", 0.25)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="is too large for 64 bits"):
        certification.largest_radius(10**30, 0.001, 0.25)
