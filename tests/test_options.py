"""Options as text: converted, checked against a settings class, and never another keyword."""

from dataclasses import dataclass
from typing import Literal

import pytest

from advpure.base.errors import BadInput
from advpure.options import check_names, purifier_options, read_options


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of every kind that options have."""

    count: int = 1
    size: float = 0.5
    clip: bool = False
    name: str | None = None
    order: Literal[1, 2, 3] = 3

    def __post_init__(self) -> None:
        """Have a rule of its own."""
        if self.count > 9:
            raise BadInput(f"count {self.count}", "is above 9", "use 9")


def test_text_becomes_what_the_field_holds() -> None:
    read = read_options(Settings, {"count": "3", "size": "2/8", "clip": "true"}, "mine")
    assert read == Settings(count=3, size=0.25, clip=True)
    assert read_options(Settings, {"count": 3, "name": None}, "mine") == Settings(count=3)


def test_a_choice_of_numbers_is_read_from_text() -> None:
    assert read_options(Settings, {"order": "2"}, "mine").order == 2
    with pytest.raises(BadInput, match="order 4 of mine is not known; known: 1, 2, 3"):
        read_options(Settings, {"order": "4"}, "mine")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"count": "1_0"}, "count '1_0' is not written in digits; write 10"),
        ({"size": "2_5"}, "size '2_5' is not written in digits; write 25"),
        ({"clip": "yes"}, "clip 'yes' is neither true nor false; use true or false"),
        ({"clip": "1"}, "clip '1' is neither true nor false; use true or false"),
    ],
)
def test_text_that_only_a_lenient_parser_reads_is_refused(given: dict[str, str], line: str) -> None:
    with pytest.raises(BadInput) as refusal:
        read_options(Settings, given, "mine")
    assert str(refusal.value) == line


def test_the_path_of_a_file_is_no_fraction() -> None:
    assert read_options(Settings, {"name": "models/1/2"}, "mine").name == "models/1/2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cuont": 1}, ["option 'cuont' of mine", "did you mean count?", "known: count, size"]),
        ({"count": "x"}, ["count 'x'", "is not a whole number"]),
        ({"count": "1/2"}, ["count 0.5", "is not a whole number"]),
        ({"size": "1/0"}, ["size '1/0'", "is not a number"]),
        ({"clip": "perhaps"}, ["clip 'perhaps'", "use true or false"]),
        ({"count": "12"}, ["count 12 is above 9; use 9"]),
    ],
)
def test_refusals_name_value_and_rule(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        read_options(Settings, options, "mine")
    for word in words:
        assert word in str(caught.value)


def test_names_alone_can_be_checked() -> None:
    check_names(Settings, {"count": "anything"}, "mine")
    with pytest.raises(BadInput, match="is not known"):
        check_names(Settings, {"xi": 1}, "mine")


def test_strength_is_given_once() -> None:
    assert purifier_options("ddpm", {}, t=None, sigma=0.2) == {"sigma": 0.2}
    assert purifier_options("ddpm", {"t": "9"}, t=None, sigma=None) == {"t": "9"}
    with pytest.raises(BadInput, match="t 5 beside option t=9 sets one strength twice"):
        purifier_options("ddpm", {"t": "9"}, t=5, sigma=None)


@pytest.mark.parametrize("name", ["xi", "gradient", "tile", "weights", "denoiser", "name"])
def test_no_option_passes_as_a_keyword_of_the_loader(name: str) -> None:
    with pytest.raises(BadInput, match=f"option '{name}' of ddpm is not known"):
        purifier_options("ddpm", {name: "x"}, t=None, sigma=None)
