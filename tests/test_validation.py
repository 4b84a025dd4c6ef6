"""The validation layer: what single values and settings classes accept and refuse."""

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Lt

from advpure.base.errors import BadInput
from advpure.base.validation import (
    LARGEST,
    Range,
    check_choice,
    name,
    number,
    shown,
    truth,
    validate,
    whole,
    words,
)


@dataclasses.dataclass(frozen=True)
class _Settings:
    steps: Annotated[int, Ge(1)] = 3
    seed: Annotated[int, Ge(0), Lt(2**64)] = 0
    share: Annotated[float, Gt(0), Lt(1)] | None = 0.5
    strength: float | str = 0.1
    count: int | None = None
    flag: bool = False
    mode: Literal["a", "b"] | None = "a"
    title: str = "x"
    other: Any = None

    def __post_init__(self) -> None:
        validate(self)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"steps": np.int64(7)}, 7),
        ({"steps": np.array(7)}, 7),
        ({"steps": torch.tensor(7)}, 7),
        ({"seed": 2**64 - 1}, 2**64 - 1),
        ({"share": np.float32(0.25)}, 0.25),
        ({"share": "1/4"}, 0.25),
        ({"share": None}, None),
        ({"strength": "8/255"}, "8/255"),
        ({"strength": np.float64(0.5)}, 0.5),
        ({"count": np.uint8(4)}, 4),
        ({"flag": np.bool_(True)}, True),
        ({"mode": None}, None),
    ],
)
def test_settings_store_plain_values(given: dict[str, Any], stored: object) -> None:
    settings = _Settings(**given)
    value = getattr(settings, next(iter(given)))
    assert value == stored
    assert type(value) is type(stored)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps 0 is not a whole number of 1 or more"),
        ({"steps": True}, "steps True is not a whole number"),
        ({"steps": np.bool_(True)}, "is not a whole number"),
        ({"steps": 2.0}, "steps 2.0 is not a whole number"),
        ({"steps": "3"}, "steps '3' is not a whole number"),
        ({"steps": 10**30}, "steps a whole number of 100 bits is too large for 64 bits"),
        ({"steps": torch.tensor([1, 2])}, "is not a whole number"),
        ({"seed": 2**64}, "is not a whole number from 0 to"),
        ({"share": 1}, "share 1 is not above 0 and below 1"),
        ({"share": True}, "share True is not a number"),
        ({"share": float("nan")}, "share nan is not finite"),
        ({"share": 1j}, "is not a number"),
        ({"share": "a/b"}, "share 'a/b' is not a number"),
        ({"share": "1/0"}, "share '1/0' is not a number"),
        ({"share": "²"}, "is not a number"),
        ({"strength": ""}, "strength '' is empty"),
        ({"count": 1.5}, "count 1.5 is not a whole number"),
        ({"flag": 1}, "flag 1 is neither true nor false"),
        ({"mode": "c"}, "mode 'c' is not known"),
        ({"mode": 1}, "mode 1 is not known"),
        ({"title": "a\nb"}, "has control characters"),
        ({"title": 3}, "title 3 is not a text"),
    ],
)
def test_settings_refuse_what_breaks_their_annotation(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        _Settings(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_choices_of_another_type_are_not_equal() -> None:
    check_choice(1, (1, 2), "dimension")
    with pytest.raises(BadInput):
        check_choice(True, (1, 2), "dimension")


def test_a_number_says_its_range() -> None:
    with pytest.raises(BadInput, match=r"alpha 2 is not above 0 and below 1; use 0\.05"):
        number(2, "alpha", Range(above=0, below=1), "use 0.05")


def test_whole_numbers_end_where_sixty_four_bits_end() -> None:
    assert whole(LARGEST, "id") == LARGEST
    with pytest.raises(BadInput, match="is too large for 64 bits"):
        whole(LARGEST + 1, "id")


@pytest.mark.parametrize("bad", ["", "../a", "a/b", ".hidden", "-x", "a b", "a" * 101, 3, None])
def test_a_name_names_nothing_outside_its_folder(bad: object) -> None:
    with pytest.raises(BadInput, match="is not a name"):
        name(bad, "name")


def test_single_values() -> None:
    assert name("cifar10-cm.v2", "name") == "cifar10-cm.v2"
    assert words("a text", "title") == "a text"
    assert truth(np.bool_(False), "flag") is False


def test_an_object_that_cannot_be_shown_is_named_by_its_type() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown(Broken()) == "a Broken"
    with pytest.raises(BadInput, match="steps a Broken is not"):
        whole(Broken(), "steps")
