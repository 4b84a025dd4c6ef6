"""Figures: files of the right kind, pixels enlarged exactly, the same file every time."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.plots.figures import Caption, histogram, image_grid

_SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF"}


def _images(count: int = 3, channels: int = 1, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, side, side, generator=generator)


def _read(path: Path) -> Any:
    return np.asarray(matplotlib.image.imread(path))[..., :3]


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf", ".PNG"])
def test_both_pictures_in_every_format_twice_the_same(tmp_path: Path, ending: str) -> None:
    images = _images()
    captions: list[Caption | str] = [Caption("7 → 3", False), Caption("1", True), "plain"]

    def draw(name: str) -> list[bytes]:
        grid = tmp_path / f"{name}-grid{ending}"
        bars = tmp_path / f"{name}-bars{ending}"
        assert image_grid({"clean": images, "adversarial": 1 - images}, grid, captions) == grid
        groups = {"a": [0.1, 0.2, 0.2], "b": [0.4]}
        assert histogram(groups, bars, xlabel="rate", title="T", caption="C") == bars
        return [grid.read_bytes(), bars.read_bytes()]

    first = draw("first")
    for content in first:
        assert content.startswith(_SIGNATURES[ending.lower()])
        assert len(content) > 2000
    assert draw("second") == first
    assert len(list(tmp_path.iterdir())) == 4


def test_the_grid_shows_the_pixels_as_even_squares(tmp_path: Path) -> None:
    """A checkerboard keeps only black and white, half and half: no smoothing anywhere."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    path = image_grid({"": board.float().expand(1, 1, 8, 8)}, tmp_path / "board.png")
    grey = _read(path).mean(axis=2)
    dark = np.argwhere(grey < 0.5)
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0)
    inside = grey[top : bottom + 1, left : right + 1]
    extremes = ((inside < 0.02) | (inside > 0.98)).mean()
    assert extremes > 0.95
    assert (inside < 0.5).mean() == pytest.approx(0.5, abs=0.03)
    assert (bottom - top) / (right - left) == pytest.approx(1.0, abs=0.03)


def test_the_grid_puts_rows_and_columns_where_they_belong(tmp_path: Path) -> None:
    red, green, blue = (torch.eye(3)[place].reshape(1, 3, 1, 1) for place in range(3))
    white = torch.ones(1, 3, 1, 1)
    top = torch.cat([red, green]).expand(2, 3, 4, 4)
    bottom = torch.cat([blue, white * 0]).expand(2, 3, 4, 4)
    pixels = _read(image_grid({"up": top, "down": bottom}, tmp_path / "colours.png"))

    def middle(color: tuple[int, int, int]) -> Any:
        return np.argwhere(np.abs(pixels - color).max(axis=2) < 0.01).mean(axis=0)

    at_red, at_green, at_blue = middle((1, 0, 0)), middle((0, 1, 0)), middle((0, 0, 1))
    assert at_red[0] == pytest.approx(at_green[0], abs=1.0)
    assert at_red[1] == pytest.approx(at_blue[1], abs=1.0)
    assert at_green[1] > at_red[1]
    assert at_blue[0] > at_red[0]


def test_captions_are_coloured_by_correctness(tmp_path: Path) -> None:
    blank = torch.ones(1, 1, 8, 8)

    def colourful(caption: Caption | str) -> Any:
        pixels = _read(image_grid({"row": blank}, tmp_path / "one.png", [caption]))
        chosen = pixels[np.ptp(pixels, axis=2) > 0.5]
        return chosen.mean(axis=0) if len(chosen) else None

    wrong, right = colourful(Caption("7 → 3", False)), colourful(Caption("7", True))
    assert wrong[0] > wrong[2]
    assert right[2] > right[0]
    assert colourful("7") is None


def test_the_histogram_is_a_share_of_each_group(tmp_path: Path) -> None:
    """A group counted twice has the same curve; another group has not."""
    drawn = re.compile(r'<path d="([^"]*)" clip-path="[^"]*" style="[^"]*#0072b2', re.IGNORECASE)

    def curves(values: list[float]) -> list[str]:
        path = histogram({"g": values}, tmp_path / "h.svg", xlabel="x")
        return drawn.findall(path.read_text())

    values = [0.1, 0.2, 0.2, 0.7] * 3
    once = curves(values)
    assert len(once) == 3
    assert curves(values * 2) == once
    assert curves([0.1, 0.2, 0.5, 0.7] * 3) != once


def test_one_value_and_equal_values_can_be_drawn(tmp_path: Path) -> None:
    histogram({"one": [1.0]}, tmp_path / "one.png", xlabel="x")
    histogram({"same": [0.0] * 50}, tmp_path / "same.png", xlabel="x")
    wide = np.concatenate([np.zeros(1000) + np.linspace(0, 1e-6, 1000), [1e6]])
    histogram({"wide": wide}, tmp_path / "wide.png", xlabel="x")


def test_values_outside_the_range_and_gradients_are_no_obstacle(tmp_path: Path) -> None:
    images = (_images() * 3 - 1).requires_grad_()
    image_grid({"a": images}, tmp_path / "a.png")
    image_grid({"a": images.detach().clamp(0, 1)}, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_needs_neither_pyplot_nor_matplotlib_on_import(tmp_path: Path) -> None:
    code = (
        "import sys, advpure.plots.figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from advpure.plots.figures import histogram\n"
        f"histogram({{'a': [1.0, 2.0]}}, {str(tmp_path / 'a.png')!r}, xlabel='x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("rows", "captions", "said"),
    [
        ({}, None, "no common shape"),
        ({"a": _images(2), "b": _images(3)}, None, "no common shape"),
        ({"a": _images(33)}, None, "33 columns"),
        ({"a": _images(0)}, None, "0 columns"),
        ({"a": _images(2, channels=2)}, None, "row 'a' of shape"),
        ({"a": _images(2)[0]}, None, "row 'a' of shape"),
        ({"a": _images(2) * float("nan")}, None, "not finite"),
        ({"a": _images(2)}, ["x"], "1 captions"),
    ],
)
def test_unusable_grids_are_refused(tmp_path: Path, rows: Any, captions: Any, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        image_grid(rows, tmp_path / "x.png", captions)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({}, "0 groups"),
        ({str(place): [1.0] for place in range(8)}, "8 groups"),
        ({"a": []}, "group 'a'"),
        ({"a": [1.0, float("nan")]}, "group 'a'"),
    ],
)
def test_unusable_groups_are_refused(tmp_path: Path, groups: Any, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        histogram(groups, tmp_path / "x.png", xlabel="x")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["x.jpg", "x"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"\.png, \.svg, \.pdf"):
        image_grid({"a": _images()}, tmp_path / name)
    with pytest.raises(BadInput, match="is no picture"):
        histogram({"a": [1.0]}, tmp_path / name, xlabel="x")


def test_a_long_caption_makes_no_figure_wider(tmp_path: Path) -> None:
    groups = {"a": [1.0, 2.0, 3.0]}
    sizes = []
    for name, caption in (("short", "settings"), ("long", "many settings " * 30)):
        path = histogram(groups, tmp_path / f"{name}.svg", xlabel="x", caption=caption)
        sizes.append(
            [float(n) for n in re.findall(r'(?:width|height)="([\d.]+)pt"', path.read_text())]
        )
    (width, height), (wider, higher) = sizes
    assert wider < 1.05 * width
    assert higher > height
