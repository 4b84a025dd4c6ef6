"""Accuracy and compression over time steps: the numbers of `cr` and `attack`, side by side."""

from pathlib import Path
from typing import Any

import pytest

from advpure.analysis import expected_compression_rate
from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.timesteps.result import TIMES, Timestep, rises
from advpure.analysis.timesteps.study import TIME_STEPS, Timesteps
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.data import load_images
from advpure.loading import load_purifier
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import find
from advpure.statistics.rates import wilson

SUBJECT: dict[str, Any] = {"defense": "ddpm", "dataset": "digits", "n": 3, "tile": 32}
QUICK: dict[str, Any] = {
    **SUBJECT, "times": (6, 1, 2), "attack_times": (2,), "attack_options": {"steps": 2},
    "perturbations": 2, "eps": 0.3, "seed": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    Timesteps(**QUICK).run(out=folder)
    return folder


def _rows(folder: Path) -> list[Any]:
    with RecordStore.read(folder) as store:
        return store.rows(TIMES.table)


def test_the_gradient_is_that_of_the_attacked_steps() -> None:
    described = Timesteps(**QUICK, gradient="bpda").load().settings["defense"]
    assert described["gradient"] == "bpda"
    assert Timesteps(**QUICK).load().settings["defense"] == {**described, "gradient": "full"}


@pytest.mark.slow
def test_the_curve_is_that_of_runs_at_each_time_step(whole: Path, tmp_path: Path) -> None:
    with RecordStore.read(whole) as store:
        report = Timesteps.report(store)
    assert [step.t for step in report.steps] == [1, 2, 6]
    for step in report.steps:
        cr = Compression(**SUBJECT, t=step.t, perturbations=2, seeds=4)
        (pooled,) = cr.run(out=tmp_path / f"cr-{step.t}").result.pooled
        assert step.cr is not None
        assert (step.cr.value, step.cr.interval) == (pooled.mean, pooled.interval)
        options = {"attack": "pgd", "attack_options": {"steps": 2}} if step.t == 2 else {}
        settings = Robustness(randomness="fixed", **SUBJECT, t=step.t, eps=0.3, seed=4, **options)
        if step.t == 2:
            alone = settings.run(out=tmp_path / f"attack-{step.t}")
            assert step.clean == alone.headline("clean")
            assert step.noise == alone.headline("noise")
            assert step.attacked == alone.headline("adversarial")
        else:
            assert step.attacked is None


def test_the_rates_are_those_of_the_function(whole: Path) -> None:
    images, _, ids = load_images("digits", n=3)
    purifier = load_purifier("ddpm", "digits", t=6, tile=32)
    more = {"perturbations": 2, "seeds": 4, "eps": 0.15}
    direct = expected_compression_rate(purifier, images, ids=ids, **more)
    rates = {row["sample"]: row["rate"] for row in _rows(whole) if row["t"] == 6}
    assert rates == direct.image_means()


def test_nothing_finished_yet_is_told(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Timesteps(**QUICK).run(out=tmp_path, progress=stop)
    with RecordStore.read(tmp_path) as store, pytest.raises(BadInput, match="finished no time"):
        Timesteps.report(store)


def test_the_report_has_one_row_a_time_step(whole: Path) -> None:
    with RecordStore.read(whole) as store:
        tree = Timesteps.report(store).tree()
    assert [row["t"] for row in tree["rows"]] == [1, 2, 6]
    assert [row["attacked"] is None for row in tree["rows"]] == [True, False, True]
    rates = {row["sample"]: row["rate"] for row in _rows(whole) if row["t"] == 2}
    assert find(tree, "rows[t=2].cr").images() == rates
    right = {row["sample"]: row["attacked"] for row in _rows(whole) if row["t"] == 2}
    assert find(tree, "rows[t=2].attacked").images() == right


def _step(t: int, rates: list[float]) -> Timestep:
    rate = wilson(1, 1)
    return Timestep(t, rate, rate, None, None, {"cr": dict(enumerate(rates))})


def test_a_rise_is_told_only_where_the_images_show_it() -> None:
    flat = _step(1, [0.2, 0.3, 0.4])
    assert rises(flat, _step(2, [0.215, 0.315, 0.417]))
    assert not rises(flat, _step(2, [0.215, 0.315, 0.417]), level=0.9999)  # of many steps
    assert not rises(flat, _step(2, [0.25, 0.25, 0.45]))
    assert not rises(flat, _step(2, [0.1, 0.2, 0.3]))
    assert not rises(_step(1, [0.2]), _step(2, [0.9]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t": 5}, "t 5 means nothing here; give times"),
        ({"sigma": 0.1}, "sigma 0.1 means nothing here"),
        ({"options": {"t": 5}}, "t 5 fixes what this verb varies"),
        ({"times": ()}, "the list of times is empty; use 1,10,100"),
        ({"times": (1, 1)}, "times 1,1 repeat a value"),
        ({"times": (1, 2, 0)}, r"times\[2\] 0 is not a whole number of 1 or more"),
        ({"times": (1, 2, 1001)}, "t 1001 is outside the linear schedule"),
        ({"attack_times": (3,)}, "attack time 3 is not among the times"),
        ({"attack": "pdg"}, "attack 'pdg' is not known; did you mean pgd"),
        ({"attack_options": {"stepz": 1}}, "option 'stepz' of pgd is not known"),
        ({"cr_eps": 8}, "ambiguous"),
        ({"eps": 8}, "ambiguous"),
        ({"perturbations": 0}, "perturbations 0 is not a whole number of 1 or more"),
        ({"seed": -1}, "seed -1 is not a whole number from 0"),
        ({"defense": "none"}, "t 6 means nothing to none"),
        ({"defense": "dpm"}, "t 1 leaves the solver no interval"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        Timesteps(**{**QUICK, **change}).run(out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_cost_is_counted_at_every_time_step() -> None:
    study = Timesteps(**QUICK)
    prepared = study.load()
    assert prepared.evaluations == {6: 6, 1: 1, 2: 2}
    cost = study.cost(prepared)
    assert (cost.images, cost.backwards) == (3, 3 * 2)
    whole = Timesteps.load(
        Timesteps(**{**QUICK, "times": TIME_STEPS, "attack_times": (), "attack_options": {}})
    )
    assert whole.evaluations == {t: t for t in TIME_STEPS}


@pytest.mark.slow
def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["timesteps", "--dataset", "digits", "-n", "2", "--tile", "32", "--times", "1,3",
            "--attack-times", "3", "--steps", "1", "--perturbations", "1"]  # fmt: skip
    assert run([*line, "--plot", "t.png"]) == 0
    out = capsys.readouterr().out
    told = (
        "digits, linf 0.15, defense ddpm, fixed randomness (seed 0), t = 1 to 3, "
        "attack pgd (1 step of 0.005, loss ce): lowest compression"
    )
    assert out.startswith(told)
    assert "pgd %" in out
    assert (tmp_path / "t.png").is_file()
    assert run([*line, "--dry-run"]) == 0
    assert "2 backward passes" in capsys.readouterr().out
    assert run(["timesteps", "--dataset", "digits", "--times", "1,x"]) == 2
    assert "time 'x' is not a whole number" in capsys.readouterr().err
