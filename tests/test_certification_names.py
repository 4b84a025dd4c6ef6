"""Names of curves say what differs among them, and no more."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from advpure.analysis.certification import Certification, read_sources
from advpure.analysis.certification.naming import names_of, subject
from advpure.cli import run


def settings(
    purifier: str = "none", classifier: str = "plain", core: str | None = None, **more: Any
) -> dict[str, Any]:
    defense: dict[str, Any] = {
        "purifier": purifier, "classifier": {"name": classifier, "sha256": "f" * 64},
        "policy": {"kind": "single", "draws": 1}, **more.pop("defense", {}),
    }  # fmt: skip
    if core is not None:
        defense |= {"core": {"name": core, "sha256": "0" * 64}, "select_entropy": 0.5}
    procedure = {"name": "fixed", "alpha": 0.001, "samples": 100, "sigmas": [0.25]}
    procedure |= more.pop("procedure", {})
    return {
        "verb": "certify", "dataset": "digits", "n": 9, "defense": defense,
        "randomness": {"seed": 0}, "procedure": procedure, **more,
    }  # fmt: skip


def cm(**more: Any) -> dict[str, Any]:
    return settings("cm", **more)


CASES: list[tuple[list[dict[str, Any]], list[str]]] = [
    ([settings()], ["none plain"]),
    ([cm()], ["cm"]),
    ([settings(), settings(classifier="gaussian")], ["none plain", "none gaussian"]),
    ([settings(), settings(core="best")], ["none plain", "none plain core best"]),
    ([cm(), settings("cm-ft", classifier="other")], ["cm", "cm-ft"]),
    ([cm(), cm(classifier="other")], ["cm plain", "cm other"]),
    ([cm(), cm(classifier="other", n=8)], ["cm plain", "cm other"]),
    ([cm(), cm(defense={"denoiser": {"name": "own"}})], ["cm", "cm own"]),
    ([cm(defense={"steps": 1}), cm(defense={"steps": 2})], ["cm steps=1", "cm steps=2"]),
    ([cm(defense={"policy": {"kind": "majority", "draws": 5}}), cm()],
     ["cm majority", "cm single"]),
    ([cm(procedure={"alpha": 0.05}), cm()], ["cm alpha=0.05", "cm alpha=0.001"]),
    ([cm(dataset="other"), cm(randomness={"seed": 1}, dataset="other")],
     ["cm seed=0", "cm seed=1"]),
    ([cm(procedure={"sigmas": [0.5]}), cm()], ["cm", "cm"]),
    ([cm(procedure={"name": "anytime"}), cm()], ["cm anytime", "cm fixed"]),
]  # fmt: skip


@pytest.mark.parametrize(("runs", "names"), CASES)
def test_names_are_short_and_differ(runs: list[dict[str, Any]], names: list[str]) -> None:
    assert names_of(runs) == names
    assert names_of(runs[::-1]) == names[::-1]


def test_weights_of_one_name_are_told_apart_by_their_sum() -> None:
    other = cm()
    other["defense"]["classifier"]["sha256"] = "a" * 64
    assert names_of([cm(), other]) == ["cm ffffffff", "cm aaaaaaaa"]


def test_all_settings_together_still_differ() -> None:
    parts = itertools.product(("none", "cm"), ("plain", "gaussian"), (None, "best"), (1, 2), (0, 1))
    runs = [
        settings(purifier, classifier, core, defense={"steps": steps}, randomness={"seed": seed})
        for purifier, classifier, core, steps, seed in parts
    ]
    names = names_of(runs)
    assert len(set(names)) == len(runs)
    assert all(name.startswith(subject(run)) for name, run in zip(names, runs, strict=True))


def test_curves_of_runs_and_their_json_have_such_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for place, classifier in enumerate(("digits-classifier", "digits-gaussian-025")):
        given = Certification(
            defense="none", dataset="digits", classifier=classifier, n=2, sigmas="0.1,0.25",
            samples=20, selection=5,
        )  # fmt: skip
        folders.append(str(tmp_path / f"{place}"))
        given.run(out=folders[-1])
    both = [
        f"none {classifier} {sigma}"
        for classifier in ("digits-classifier", "digits-gaussian-025")
        for sigma in ("0.1", "0.25")
    ]
    assert [curve.name for curve in read_sources(folders).curves] == both
    code = run(["certified-accuracy", *folders, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [curve["name"] for curve in found["curves"]] == both
    assert {each["name"] for each in found["best"]} <= set(both)
    for each in found["best"]:  # `clean` is of the same curve, at radius 0
        (row,) = [r for r in found["rows"] if (r["name"], r["radius"]) == (each["name"], 0.0)]
        assert each["clean"] == {key: row[key] for key in each["clean"]}
