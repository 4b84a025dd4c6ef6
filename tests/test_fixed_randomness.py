"""Fixed against fresh randomness: laid out, measured once, paired, correlated."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advpure.analysis.fixed_randomness.correlation import correlate, perturbation_correlations
from advpure.analysis.fixed_randomness.layout import fixed_randomness_settings
from advpure.analysis.fixed_randomness.result import RandomnessResult
from advpure.analysis.fixed_randomness.study import FixedRandomness
from advpure.analysis.robustness.protocol import DECISIONS
from advpure.analysis.robustness.study import Robustness
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import find
from advpure.statistics.rates import mean_interval, paired_difference
from advpure.sweeps.experiment import load_experiment

SUBJECT: dict[str, Any] = {"defense": "onestep-edm", "dataset": "digits", "n": 4, "tile": 32}
ATTACK: dict[str, Any] = {"eps": 0.3, "attack_options": {"steps": 3, "step_size": 0.1}}
QUICK: dict[str, Any] = {**SUBJECT, **ATTACK, "seeds": (0, 5), "eot": 2, "draws": 3}


def test_the_layout_is_one_attack_under_each_protocol() -> None:
    base = Robustness(randomness="fixed", **SUBJECT, **ATTACK, attack="bpda")
    runs = fixed_randomness_settings(base, seeds=(3, 1), eot=15, draws=7)
    assert list(runs) == ["fixed-3", "fixed-1", "fresh", "fresh-eot"]
    for name, each in runs.items():
        assert (each.attack, each.eps, each.defense) == ("bpda", 0.3, "onestep-edm")
        assert each.attack_options["stop"] == "never"
        assert each.attack_options["steps"] == 3
        assert each.attack_options.get("eot") == (15 if name == "fresh-eot" else None)
        assert each.randomness == ("fixed" if name.startswith("fixed") else "fresh")
        assert each.draws == (None if name.startswith("fixed") else 7)
        assert each.source_seed is None
    assert [each.seed for each in runs.values()] == [3, 1, 3, 3]
    # No two runs begin at the same points.
    assert len({each.attack_options["seed"] for each in runs.values()}) == 4
    assert "fresh-eot" not in fixed_randomness_settings(base, seeds=(3, 1), eot=None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attack": "uniform-noise"}, "follows no gradient; use pgd, apgd or bpda"),
        ({"attack": "pgd-eot"}, "averages over randomness itself.*use pgd"),
        ({"attack": "BPDA_EOT"}, "averages over randomness itself.*use bpda"),
        ({"attack": "pdg"}, "attack 'pdg' is not known; did you mean pgd"),
        ({"attack_options": {"eot": 3}}, "attack option eot=3 is set by the comparison itself"),
        ({"attack_options": {"seed": 3}}, "attack option seed=3 is set by the comparison itself"),
        ({"attack_options": {"targeted": True}}, "has no classes to reach"),
        ({"attack_options": {"stepz": 1}}, "option 'stepz' of pgd is not known"),
        ({"seeds": (0,)}, "leave nothing to transfer to; give two or more"),
        ({"seeds": ()}, "the list of seeds is empty"),
        ({"seeds": (0, 0)}, "seeds 0,0 repeat a value"),
        ({"seeds": (0, -1)}, "seed -1 is not a whole number from 0"),
        ({"eot": -1}, "eot -1 is not a whole number of 0 or more"),
        ({"draws": 0}, "draws 0 is not a whole number from 1"),
        ({"defense": "none"}, "defense none draws no noise that could be fixed"),
        ({"eps": 8}, "ambiguous"),
        ({"norm": "l1"}, "norm l1 is not covered"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        FixedRandomness.run(FixedRandomness(**{**QUICK, **change}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(BadInput, match="holds no image"):
        FixedRandomness(**QUICK).run(out=tmp_path / "run", batch_size=0)


def test_correlations_are_numpys() -> None:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(5, 3, 4, 4, generator=generator)
    second = 0.3 * first + torch.randn(5, 3, 4, 4, generator=generator) + 0.5
    for k, found in enumerate(correlate(first, second)):
        a, b = (each[k].double().flatten().numpy() for each in (first, second))
        assert found.pearson == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
        exact = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert found.cosine == pytest.approx(exact, abs=1e-12)


def test_correlations_have_their_known_values() -> None:
    a = torch.tensor([[[[0.5, -0.5], [0.25, -0.25]]]])
    same, opposite, apart = (correlate(a, b)[0] for b in (3 * a, -a, a.flip(3).flip(2).abs()))
    assert same.cosine == same.pearson == pytest.approx(1.0)
    assert opposite.cosine == opposite.pearson == pytest.approx(-1.0)
    assert apart.cosine == pytest.approx(0.0, abs=1e-12)
    flat = correlate(a, torch.full_like(a, 0.1))[0]
    assert (flat.pearson, flat.cosine) == (None, pytest.approx(0.0, abs=1e-12))
    assert correlate(torch.zeros_like(a), a)[0] == (None, None)
    with pytest.raises(BadInput, match="are not pairs"):
        correlate(a, a[0])


def test_unrelated_directions_correlate_as_wide_as_they_should() -> None:
    # Pearson's r of independent normal vectors has mean 0 and variance 1 / (d - 1) exactly.
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, 4000, 1, 6, 6, generator=generator)
    values = np.array([each.pearson for each in correlate(first, second)], dtype=float)
    z = 4.42  # two-sided, alpha = 1e-5
    assert abs(values.mean()) <= z * math.sqrt(1 / 35 / 4000)
    spread = values.var() * 35
    assert abs(spread - 1) <= z * math.sqrt(2 / 4000)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    FixedRandomness(**QUICK).run(out=folder)
    return folder


def _rows(folder: Path) -> list[Any]:
    with RecordStore.read(folder) as store:
        return [store.rows(table.table) for table in store.schemas]


def test_the_parts_are_runs_of_attack(whole: Path) -> None:
    for name in ("fixed-0", "fixed-5", "fresh", "fresh-eot"):
        with RecordStore.read(whole / name) as own:
            decisions = own.rows(DECISIONS.table)
            assert len(own.blobs()) == 4 * 4
        with RecordStore.read(whole) as store:
            outcomes = store.rows("randomness_outcomes", {"part": name})
        assert len(outcomes) == 4
        for row in outcomes:
            for stage, column in (("clean",) * 2, ("noise",) * 2, ("adversarial", "attacked")):
                mine = [d["correct"] for d in decisions
                        if d["sample"] == row["sample"] and d["stage"] == stage]  # fmt: skip
                assert len(mine) == row["draws"] == (1 if name.startswith("fixed") else 3)
                assert sum(mine) == row[column]
                assert mine[0] == row[f"first_{column}"]


def test_transfer_decides_as_a_run_of_its_own_would(whole: Path, tmp_path: Path) -> None:
    base = Robustness(randomness="fixed", **SUBJECT, **ATTACK)
    attacked = fixed_randomness_settings(base, seeds=(0, 5), eot=None)["fixed-0"]
    replace(attacked, seed=5, source_seed=0).run(out=tmp_path)
    with RecordStore.read(tmp_path) as own, RecordStore.read(whole) as store:
        alone = own.rows(DECISIONS.table, {"stage": "adversarial"})
        here = store.rows("randomness_transfers", {"source": 0, "target": 5})
    assert [row["prediction"] for row in here] == [row["prediction"] for row in alone]
    assert [row["correct"] for row in here] == [row["correct"] for row in alone]


def test_correlations_are_those_of_the_stored_images(whole: Path) -> None:
    found = perturbation_correlations(whole / "fresh-eot", whole / "fixed-5")
    assert found.notes == ()
    with RecordStore.read(whole) as store:
        rows = store.rows("randomness_correlations", {"first": "fresh-eot", "second": "fixed-5"})
        result = FixedRandomness.report(store).result
    assert {row["sample"]: row["pearson"] for row in rows} == {
        i: each.pearson for i, each in found.by_sample.items()
    }
    (eot,) = [each for each in result.correlated() if each.pair == "fresh-eot, fixed"]
    other = perturbation_correlations(whole / "fresh-eot", whole / "fixed-0")
    pairs = [(found.by_sample[i].pearson, other.by_sample[i].pearson) for i in range(4)]
    assert eot.pearson == mean_interval([(a + b) / 2 for a, b in pairs if a and b])
    assert [each.pair for each in result.correlated()] == [
        "fixed, fixed", "fresh, fixed", "fresh-eot, fixed",
    ]  # fmt: skip


def test_nothing_finished_yet_is_told(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FixedRandomness(**QUICK).run(out=tmp_path, progress=stop)
    with RecordStore.read(tmp_path) as store, pytest.raises(BadInput, match="finished no image"):
        FixedRandomness.report(store)


def test_table_s5_reads_the_pairs_that_it_names(whole: Path) -> None:
    with RecordStore.read(whole) as store:
        tree = FixedRandomness.report(store).tree()
    paths = load_experiment("003:table-s5", "small").keys["pair"]
    assert isinstance(paths, Mapping)
    pairs = {name: find(tree, f"{path}.pair") for name, path in paths.items()}
    assert pairs == {"pgd-fix, pgd-fix": "fixed, fixed", "pgd-eot, pgd-fix": "fresh-eot, fixed"}


def test_every_value_of_the_report_is_the_mean_of_values_of_images(whole: Path) -> None:
    with RecordStore.read(whole) as store:
        tree = FixedRandomness.report(store).tree()
    paths = [
        f"rows[randomness={name}].{stage}"
        for name in ("fresh", "fixed")
        for stage in ("clean", "noise", "attacked", "attacked_eot")
    ]
    assert find(tree, paths.pop()) is None
    differences = tree["differences"]
    assert [each.extra["what"] for each in differences] == [
        "fresh - fixed",
        "fresh-eot - fixed",
        "transfer - fixed",
    ]
    values = [find(tree, at) for at in (*paths, "transfer")]
    values += [tree["correlations"][k][name] for k in (0, 2) for name in ("pearson", "cosine")]
    for value in (*values, *differences, *(each.extra["shares"] for each in differences)):
        images = value.images()
        assert len(images) == value.n == tree["n"] == 4
        assert np.mean(list(images.values())) == pytest.approx(value.value, abs=1e-12)


def _outcome(part: str, i: int, draws: int, attacked: int, first: bool) -> dict[str, Any]:
    return {
        "part": part, "sample": i, "draws": draws, "clean": draws, "noise": draws,
        "attacked": attacked, "first_clean": True, "first_noise": True, "first_attacked": first,
        "zero_gradient": False,
    }  # fmt: skip


def test_rates_and_differences_are_computed_from_the_same_images() -> None:
    right = {"fixed-0": [0, 0, 1, 0, 1], "fixed-1": [0, 1, 1, 0, 0]}
    fresh = [4, 2, 4, 0, 3]
    firsts = [1, 0, 1, 0, 1]
    # The first row is an image that no other run has finished.
    outcomes = [_outcome("fixed-0", 9, 1, 1, True)]
    for part, listed in right.items():
        outcomes += [_outcome(part, i, 1, r, bool(r)) for i, r in enumerate(listed)]
    for i, (r, first) in enumerate(zip(fresh, firsts, strict=True)):
        outcomes.append(_outcome("fresh", i, 4, r, bool(first)))
    moved = {(0, 1): [1, 1, 1, 0, 0], (1, 0): [1, 0, 1, 1, 1]}
    transfers = [
        {"source": s, "target": t, "sample": i, "prediction": 0, "correct": bool(r)}
        for (s, t), listed in moved.items()
        for i, r in enumerate(listed)
    ]
    result = RandomnessResult(outcomes, transfers, (), (0, 1))
    assert result.ids == [0, 1, 2, 3, 4]
    fixed = result.fixed("attacked")
    assert fixed.rate.value == pytest.approx(0.4)
    assert (fixed.std, fixed.repeats, fixed.rate.n) == (0.0, 2, 5)
    free = result.fresh("attacked")
    assert free is not None
    assert free.rate.value == pytest.approx(13 / 20)
    transfer = result.transfer()
    assert transfer is not None
    assert (transfer.rate.value, transfer.repeats) == (pytest.approx(0.7), 2)
    assert transfer.std == pytest.approx(math.sqrt(0.02))
    free_gain, moved_on = result.compared()
    assert free_gain.decision == paired_difference(firsts, right["fixed-0"])
    gains = [1.0 - 0.0, 0.5 - 0.5, 1.0 - 1.0, 0.0, 0.75 - 0.5]
    assert free_gain.shares == mean_interval(gains)
    assert moved_on.name == "transfer"
    assert moved_on.decision == paired_difference(moved[1, 0], right["fixed-0"])
    assert result.fresh("attacked", "fresh-eot") is None


def test_images_that_all_agree_give_no_interval_without_width() -> None:
    outcomes = [_outcome(p, i, 1, 1, True) for p in ("fixed-0", "fixed-1", "fresh") for i in (1, 2)]
    (first,) = RandomnessResult(outcomes, (), (), (0, 1)).compared()
    assert (first.shares.value, first.shares.interval) == (0.0, None)
    assert first.decision.low < 0 < first.decision.high


def test_two_runs_of_attack_are_correlated(tmp_path: Path) -> None:
    for name, more in {
        "a": {}, "b": {"seed": 3}, "early": {"stop": "success"}, "bare": {"random_start": False},
    }.items():  # fmt: skip
        options = {"steps": 1, "stop": "never", **more}
        settings = Robustness(randomness="fixed", **SUBJECT, eps=0.3, attack_options=options)
        replace(settings, keep_images=True).run(out=tmp_path / name)
    own = perturbation_correlations(tmp_path / "a", tmp_path / "a")
    mean = own.cosine()
    assert mean is not None
    assert (mean.value, mean.n, own.absent) == (pytest.approx(1.0), 4, 0)
    assert "began at the same random starts (attack seed 0)" in own.notes[0]
    assert perturbation_correlations(tmp_path / "a", tmp_path / "b").notes == ()
    assert perturbation_correlations(tmp_path / "bare", tmp_path / "bare").notes == ()
    notes = perturbation_correlations(tmp_path / "b", tmp_path / "early").notes
    assert ["stopped at success" in note for note in notes] == [True]


def test_runs_that_cannot_be_correlated_are_refused(tmp_path: Path, whole: Path) -> None:
    settings = Robustness(randomness="fixed", **SUBJECT, eps=0.3, attack_options={"steps": 1})
    settings.run(out=tmp_path / "bare")
    with pytest.raises(BadInput, match="holds no images; attack with --save-images"):
        perturbation_correlations(tmp_path / "bare", whole / "fresh")
    with pytest.raises(BadInput, match="of randomness is no attack"):
        perturbation_correlations(whole, whole / "fresh")
    with pytest.raises(BadInput, match="is no run folder"):
        perturbation_correlations(tmp_path / "nowhere", whole / "fresh")
    other = {**SUBJECT, "subset": "first-3", "n": 3}
    settings = Robustness(randomness="fixed", **other, eps=0.3, attack_options={"steps": 1})
    replace(settings, keep_images=True).run(out=tmp_path / "other")
    with pytest.raises(BadInput, match="runs of subset first-3 and test are not pairs"):
        perturbation_correlations(tmp_path / "other", whole / "fresh")


def test_the_cost_counts_every_gradient() -> None:
    study = FixedRandomness(**QUICK)
    cost = study.cost(study.load())
    assert (cost.images, cost.backwards) == (4, 4 * 3 * (2 + 1 + 2))


LINE = "randomness -d onestep-edm --dataset digits -n 3 --tile 32 --eps 0.3 --steps 2 --draws 2"
SMALL = [*LINE.split(), "--seeds", "0,1", "--eot", "2"]


@pytest.mark.slow
def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*SMALL, "--plot", "r.png"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("digits, linf 0.3, defense onestep-edm sigma=0.25, attack pgd (")
    for words in ("fresh, pgd, 2 draws a gradient", "fixed, pgd of another seed", "fixed, fixed"):
        assert words in out
    assert (tmp_path / "r.png").is_file()
    assert run([*SMALL, "--dry-run"]) == 0
    assert "30 backward passes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--seeds 0", ["seeds [0]", "leave nothing to transfer to", "two or more"]),
        ("--attack pgd-eot", ["attack pgd-eot", "averages", "use pgd"]),
        ("--eot -1", ["eot -1", "is not a whole number", "use 0"]),
        ("--attack-option eot=3", ["attack option eot=3", "set by the comparison", "leave"]),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    line: str, words: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    flag = line.split()[0]
    before = re.sub(rf"{flag} \S+ ?", "", LINE)
    code = run([*before.split(), *line.split()])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert [word for word in words if word not in err] == []
    assert list(tmp_path.iterdir()) == []
