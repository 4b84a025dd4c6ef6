"""Units are converted in one place, parsed, and refused where two readings are possible."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.units import check_images, parse_eps, parse_number, parse_sigma, to_model, to_unit


def test_the_two_ranges_map_onto_each_other() -> None:
    corners = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert to_model(corners).tolist() == [-1.0, -0.5, 0.0, 1.0]
    assert to_unit(to_model(corners)).tolist() == corners.tolist()
    # Distances double, so a noise of sigma becomes 2 sigma.
    assert float(to_model(corners[2]) - to_model(corners[1])) == 2 * 0.25


@given(st.floats(0, 1, width=32))
def test_converting_and_back_rounds_in_the_last_bit_only(value: float) -> None:
    x = torch.tensor(value)
    assert abs(float(to_unit(to_model(x)) - x)) <= 2**-24


@pytest.mark.parametrize(("text", "value"), [
    ("8/255", 8 / 255), ("0.03", 0.03), (0.03, 0.03), ("1.0", 1.0), (" 2 / 255 ", 2 / 255),
    ("1e-3", 1e-3), ("1/1", 1.0),
])  # fmt: skip
def test_parse_eps_reads(text: str | float, value: float) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize(("text", "norm", "value"), [
    ("0.5", "l2", 0.5), (2.5, "l2", 2.5), ("1", "l2", 1.0), ("1530/255", "l2", 6.0),
])  # fmt: skip
def test_parse_eps_reads_l2(text: str | float, norm: str, value: float) -> None:
    assert parse_eps(text, norm) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["8", 8, "255", 1, "8.0", 1.5, "300/255"])
def test_an_epsilon_with_two_readings_is_refused_with_the_fix(text: str | float) -> None:
    with pytest.raises(BadInput, match=r"is ambiguous.*write .*/255"):
        parse_eps(text)


@pytest.mark.parametrize("text", ["0", 0.0, "-8/255", "nan", float("nan"), "inf", "8/0", "1/2/3",
                                  "eight", "", None])  # fmt: skip
@pytest.mark.parametrize("read", [parse_eps, parse_sigma])
def test_no_strength_is_refused_in_one_line(text: object, read: Callable[[object], float]) -> None:
    with pytest.raises(BadInput, match=r"not (positive|finite|a number)") as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_parse_sigma() -> None:
    assert parse_sigma("0.25") == 0.25
    assert parse_sigma(40) == 40
    with pytest.raises(BadInput, match=r"above 40.*write 0\.2471 if you meant 63/255"):
        parse_sigma(63)


def test_parse_number_names_what_it_read() -> None:
    assert parse_number("-3/4", "shift") == -0.75
    with pytest.raises(BadInput, match="shift 'x' is not a number"):
        parse_number("x", "shift")


@pytest.mark.parametrize(("images", "rule"), [
    (torch.zeros(3, 8, 8), r"not \[B, C, H, W\]"),
    (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "dtype torch.uint8 are not floating point"),
    (torch.full((1, 1, 2, 2), 255.0), "leave .*divide by 255"),
    (torch.full((1, 1, 2, 2), -1.0), r"leave .*map them with \(x \+ 1\) / 2"),
    (torch.full((1, 1, 2, 2), float("nan")), "NaN"),
    (torch.full((1, 1, 2, 2), float("inf")), "infinite"),
    ([[0.0]], "images of type list are not a tensor"),
    (torch.zeros(1, 1, 2, 2, dtype=torch.complex64), "complex64 .*take the real part"),
    (torch.zeros(1, 1, 2, 2, dtype=torch.bool), "torch.bool are not floating point"),
    (torch.zeros(1, 1, 2, 2).to_sparse(), "layout sparse_coo are not dense; call to_dense"),
    (torch.zeros(1, 1, 2, 2, device="meta"), "on the device meta have no values"),
    (torch.tensor([-2.1, 2.6]).reshape(1, 1, 1, 2), "put the normalisation into the model"),
    (torch.tensor([-0.2, 1.2]).reshape(1, 1, 1, 2), "put the normalisation into the model"),
    (torch.tensor([0.0, 1.2]).reshape(1, 1, 1, 2), "clip them"),
])  # fmt: skip
def test_images_outside_the_contract_are_refused(images: Tensor, rule: str) -> None:
    with pytest.raises(BadInput, match=rule):
        check_images(images)


@pytest.mark.parametrize(("labels", "rule"), [
    (torch.zeros(3, dtype=torch.int64), r"labels of shape \(3,\) do not match 2 images"),
    (torch.zeros(2), "not class indices"),
    (torch.tensor([0, -1]), "label -1 is negative"),
    (torch.tensor([True, False]), "torch.bool are not class indices"),
    ([0, 1], "labels of type list are not a tensor"),
])  # fmt: skip
def test_labels_outside_the_contract_are_refused(labels: Tensor, rule: str) -> None:
    with pytest.raises(BadInput, match=rule):
        check_images(torch.zeros(2, 1, 2, 2), labels)


@pytest.mark.parametrize("images", [
    torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)),
    torch.zeros(0, 1, 2, 2), torch.ones(1, 1, 2, 2).double(), torch.full((1, 1, 1, 1), 1 + 5e-7),
])  # fmt: skip
def test_images_within_the_contract_pass(images: Tensor) -> None:
    check_images(images, torch.zeros(len(images), dtype=torch.int64))
