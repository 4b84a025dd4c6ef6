"""Curves of certified accuracy side by side: what each panel says, read from the drawing."""

from pathlib import Path

import numpy as np
import pytest

from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.figure import draw_panels
from advpure.base.errors import BadInput


def _certified(name: str, n: int = 4) -> CertifiedImages:
    ids, classes = np.arange(n), np.zeros(n, dtype=np.int64)
    radii = np.linspace(0.1, 0.4, n)
    return CertifiedImages(name=name, ids=ids, labels=classes, predictions=classes, radii=radii)


def _words(path: Path) -> list[str]:
    """Return the texts of an SVG, which matplotlib repeats as comments above their outlines."""
    lines = path.read_text().splitlines()
    return [line.strip()[5:-4] for line in lines if line.strip().startswith("<!-- ")]


def test_a_panel_a_noise_level_and_one_legend_where_all_have_the_same_curves(
    tmp_path: Path,
) -> None:
    panels = {f"sigma {s}": [_certified("cm"), _certified("cm-ft")] for s in ("0.25", "0.5", "1")}
    words = _words(draw_panels(panels, tmp_path / "a.svg", title="Curves", caption="a word " * 60))
    assert [words.count(f"sigma {s}") for s in ("0.25", "0.5", "1")] == [1, 1, 1]
    assert words.count("cm (n = 4)") == words.count("cm-ft (n = 4)") == 1
    assert words.count("l2 radius, in [0, 1] units") == 3
    assert words.count("Curves") == words.count("certified accuracy, %") == 1
    caption = [each for each in words if each.startswith("a word")]
    assert len(caption) == 3  # 420 letters below 9.9 inches
    assert max(map(len, caption)) <= 17 * 9.9


def test_panels_of_unlike_curves_have_a_legend_each(tmp_path: Path) -> None:
    panels = {"a": [_certified("cm")], "b": [_certified("cm", 5)]}
    words = _words(draw_panels(panels, tmp_path / "b.svg"))
    assert [words.count(f"cm (n = {n})") for n in (4, 5)] == [1, 1]


def test_nothing_and_too_much_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="0 panels are nothing to draw"):
        draw_panels({}, tmp_path / "a.svg")
    with pytest.raises(BadInput, match="0 curves are not 1 to 28"):
        draw_panels({"a": [_certified("cm")], "b": []}, tmp_path / "a.svg")
    with pytest.raises(BadInput, match="29 curves are not 1 to 28"):
        draw_panels({"a": [_certified("cm")] * 29}, tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
