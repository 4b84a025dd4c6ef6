"""Figures from records alone: every kind is written, is the same twice, and says n and settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.study import Robustness
from advpure.base.errors import BadInput
from advpure.cli import run as cli
from advpure.plots.charts import Points, Words, dots, lines, scatter
from advpure.sweeps.drawing import draw
from advpure.sweeps.figures import describe_settings
from advpure.sweeps.points import plan
from advpure.sweeps.session import Session, prepare_sweep, run_sweep
from advpure.sweeps.sweep import parse_sweep

WORDS = Words(x="rate", y="share (%)", title="A law", caption="n = 3; " + "many words " * 20)
GROUPS = {
    name: Points(
        x=[0.1 + k, 0.2 + k, 0.3 + k], x_low=[0, 0.1, 0.2], x_high=[1.0, 1.1, 1.2],
        y=[1.0, 2.0, float("nan")], y_low=[0.5, 1.5, 2.0], y_high=[1.5, 2.5, 4.0],
        labels=["a", "b", "c"],
    )
    for k, name in enumerate(("one", "two", "three"))
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_charts_are_written_the_same_twice(tmp_path: Path, ending: str) -> None:
    hollow = {"two": Points(x=[0.5], y=[1.0]), "four": Points(x=[0.6], y=[2.0])}
    curve = {"fit": Points(x=[0, 1], y=[1, 2], y_low=[0, 1], y_high=[2, 3])}
    makers = {
        "scatter": lambda path: scatter(GROUPS, path, WORDS, curves=curve, hollow=hollow),
        "lines": lambda path: lines(GROUPS, path, WORDS, logarithmic=True, hollow=hollow),
        "dots": lambda path: dots(GROUPS, ["r", "s", "t"], path, WORDS, hollow=hollow),
    }
    for name, make in makers.items():
        first = make(tmp_path / f"{name}-1.{ending}").read_bytes()
        assert make(tmp_path / f"{name}-2.{ending}").read_bytes() == first
        assert len(first) > 3000


def test_text_is_in_the_picture(tmp_path: Path) -> None:
    text = scatter(GROUPS, tmp_path / "law.svg", WORDS).read_text()
    assert text.count("<!-- three -->") == 1
    assert "<!-- share (%) -->" in text
    assert "n = 3" in text


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: lines({}, path, WORDS), "0 groups are not 1 to 7"),
        (lambda path: lines(GROUPS, path.with_suffix(".txt"), WORDS), "is no picture"),
        (lambda path: Points(x=[1.0], y=[1.0, 2.0]), "2 values of y do not match 1 points"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call(tmp_path / "law.png")


def test_runs_are_drawn_from_their_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cr, attack = tmp_path / "cr", tmp_path / "attack"
    base: dict[str, Any] = {"dataset": "digits", "n": 4, "tile": 4}
    Compression.run(
        Compression(**base, defense="onestep-ddpm", perturbations=2), out=cr
    )  # fmt: skip
    Robustness.run(
        Robustness(randomness="fixed", **base, defense="none", attack_options={"steps": 1}),
        out=attack,
    )
    monkeypatch.setattr("advpure.loading.load_purifier", None)  # from here on no network is loaded
    assert cli(["plot", str(cr), str(attack), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures == {
        str(folder): [str(folder / f"figure.{ending}") for ending in ("svg", "png")]
        for folder in (cr, attack)
    }
    assert "n = 4" in (cr / "figure.svg").read_text()
    assert "attacked" in (attack / "figure.svg").read_text()
    assert cli(["plot", str(cr), "--to", str(tmp_path / "one.pdf")]) == 0
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_a_sweep_without_an_experiment_is_drawn_along_its_axis(tmp_path: Path) -> None:
    base = {"dataset": "digits", "n": 2, "defense": "none", "perturbations": 2}
    ordered = {"verb": "cr", "base": base, "grid": {"eps": [0.1, 0.2, 0.3], "clip": [True, False]}}
    axes = {"distribution": ["uniform", "sign"], "perturbations": [2]}  # a constant names nothing
    named = {"verb": "cr", "base": base, "grid": axes}
    for k, law in enumerate((ordered, named)):
        session = Session(root=tmp_path, jobs=1)
        index, points = prepare_sweep(parse_sweep(law, name=f"law-{k}", where="a test"), session)
        run_sweep(index, points, session)
        (path,) = draw(index.folder, tmp_path / f"figure-{k}", [".svg"])
        assert path.name == f"figure-{k}-cr-compression-rate.svg"
        text = path.read_text()
        assert ("<!-- clip=True -->" if k == 0 else "<!-- uniform -->") in text
        for words in ("none", "seeds 0"):  # of the runs, where settings are by default
            assert words in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], "is no run folder"),
        (["absent", "--to", "law.txt"], "is no picture"),
        (["absent", "--endings", "gif"], "is no picture"),
        (["absent", "--endings", "svg,SVG"], "repeat a value"),
        (["absent", "--to", "law.png", "--endings", "pdf"], "says twice which file"),
        (["absent", "--to", "/dev/null"], "is there, and is no picture"),
        (["one", "two", "--to", "law.png"], "is one place for 2 figures"),
    ],
)
def test_plot_refuses_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["plot", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_caption_says_what_is_not_as_by_default() -> None:
    base = {"dataset": "digits", "n": 2, "defense": "none", "perturbations": 2}
    sweep = parse_sweep(
        {"verb": "cr", "base": base, "grid": {"eps": [0.1]}}, name="law", where="a test"
    )  # fmt: skip
    (point,) = plan(sweep)
    assert describe_settings(point) == "cr: defense none, dataset digits, n 2, perturbations 2"
