"""Transport: closed forms on Gaussian data and two points, Markov's bound, records, pictures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import gammaln
from torch import Tensor

from advpure.analysis.closed_forms.two_point import (
    simulate_two_points,
    two_point_denoiser,
    two_point_law,
)
from advpure.analysis.closed_forms.two_point_study import TwoPoint
from advpure.analysis.transport.figure import draw_purified
from advpure.analysis.transport.result import PICTURES, TransportResult
from advpure.analysis.transport.rows import chains_at, purified_batches
from advpure.analysis.transport.study import Transport
from advpure.base.errors import BadInput
from advpure.cli import run as cli
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Noise
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.plots.figures import image_grid
from advpure.purifiers.oneshot import OneStepEDM
from advpure.purifiers.pf_ode import PFODE
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import find

SHAPE, STD = (1, 4, 4), 0.6  # standard deviation of the data in model units
Z = 4.4172  # two-sided, alpha = 1e-5


def chi_mean(d: int) -> float:
    """Return E||z|| of a standard normal z in d dimensions."""
    return math.sqrt(2.0) * math.exp(gammaln((d + 1) / 2) - gammaln(d / 2))


def gaussian_images(n: int) -> Images:
    """Draw images in [0, 1] units whose model-unit values are N(0, STD^2), not clipped."""
    z = RandomnessConfig(7, "counter").normal(list(range(n)), "forward", 0, SHAPE)
    return Images(0.5 + 0.5 * STD * z, torch.zeros(n, dtype=torch.int64), torch.arange(n))


def transport_of(recipe: OneStepEDM | PFODE, sigma: float, n: int = 400) -> np.ndarray:
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), STD**2)
    purifier = Purifier("gaussian", recipe.chain(denoiser), denoiser=denoiser, recipe=recipe)
    found = [
        batch.distances
        for batch in purified_batches(
            chains_at(purifier, (sigma,)), gaussian_images(n), draws=1,
            xi=RandomnessConfig(0, "counter"), batch_size=1000,
        )
    ]  # fmt: skip
    return torch.cat(found).numpy()


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["one-shot", "ode"])
def test_the_transport_of_gaussian_data_is_the_closed_form(kind: str, sigma: float) -> None:
    """One-shot: x - D(x + t z) ~ N(0, s^2 t^2 / (s^2 + t^2)); the ODE: y -> y s / sqrt(s^2 + t^2).

    Distances in [0, 1] units are half of those in model units.
    """
    t = 2 * sigma
    if kind == "one-shot":
        spread = STD * t / math.hypot(STD, t)
        values = transport_of(OneStepEDM(sigma=sigma, time_rule="exact"), sigma)
    else:
        spread = STD * math.sqrt(2 - 2 * STD / math.hypot(STD, t))
        values = transport_of(PFODE(sigma=sigma, nodes=40), sigma)
    expected = 0.5 * spread * chi_mean(16)
    error = values.std(ddof=1) / math.sqrt(len(values))
    # Heun's method with 40 nodes is within 2e-3 of the ODE's solution here.
    assert abs(values.mean() - expected) < Z * error + (kind == "ode") * 2e-3 * expected


def test_without_a_purifier_the_transport_is_the_length_of_the_noise(tmp_path: Path) -> None:
    run = Transport(defense="none", dataset="digits", n=100, sigmas="0.25,0.5", draws=4)
    low, high = run.run(out=tmp_path / "run").levels
    assert low.sigma == 0.25
    for level in (low, high):
        assert level.transport.std is not None
        error = level.transport.std / math.sqrt(level.transport.n)
        assert abs(level.transport.value - level.sigma * chi_mean(64)) < Z * error
    # The same noise at every level.
    assert high.transport.value == pytest.approx(2 * low.transport.value, rel=1e-5)
    assert low.accuracy is not None
    assert high.accuracy is not None
    assert low.accuracy.value > high.accuracy.value > 0.1


def rows_of(distances: list[list[float]]) -> list[dict[str, object]]:
    return [
        {"sigma": 0.5, "sample": i, "draw": k, "distance": d, "label": 1, "predicted": int(d < 2)}
        for i, own in enumerate(distances)
        for k, d in enumerate(own)
    ]


def test_both_sides_of_the_markov_bound_are_those_of_the_measured_distances() -> None:
    result = TransportResult(rows_of([[1.0, 1.0], [0.0, 4.0], [0.0, 0.0]]), (0.5, 1.0, 2.0, 4.0))
    found = result.level(0.5)
    assert found.transport.value == pytest.approx(1.0)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(5 / 6)
    assert [each.radius for each in found.markov] == pytest.approx([0.5, 1.0, 2.0, 4.0])
    # 4 is beyond 2 in one of six draws; nothing is beyond 4, where 1 draw lies.
    assert [each.exceeds.value for each in found.markov] == pytest.approx([0.5, 1 / 6, 1 / 6, 0])
    assert [each.bound.value for each in found.markov] == pytest.approx([2, 1, 0.5, 0.25])
    assert all(each.holds for each in found.markov)


def test_the_markov_bound_is_reached_where_distances_are_0_or_r() -> None:
    """The worst case of the inequality: a share p at distance just above r, the rest at 0."""
    result = TransportResult(rows_of([[1.0], [0.0], [0.0], [0.0]]), (3.999,))
    (only,) = result.level(0.5).markov
    assert only.exceeds.value == 0.25
    assert only.bound.value == pytest.approx(0.25, rel=1e-3)
    assert only.holds


def test_random_distances_never_break_the_markov_bound() -> None:
    z = RandomnessConfig(1, "counter").normal(list(range(20)), "forward", 0, (5,)).double()
    for heavy in (1.0, 3.0):
        distances = (heavy * z).exp().tolist()
        result = TransportResult(rows_of(distances), tuple(np.linspace(0.1, 5, 50).tolist()))
        assert all(each.holds for each in result.level(0.5).markov)


def test_an_identity_moves_nothing_and_holds_the_bound() -> None:
    found = TransportResult(rows_of([[0.0], [0.0]]), (1.0,)).level(0.5)
    assert found.transport.value == 0.0
    assert found.markov[0].holds
    with pytest.raises(BadInput, match="has no rows yet"):
        TransportResult([])


SETTINGS = Transport(
    defense="cm", dataset="digits", n=6, sigmas="0.25,0.75", draws=3, kept=4, tile=8
)


class Stopped(Exception):
    """A run that is interrupted."""


def test_the_first_pictures_are_kept_and_an_unfinished_run_says_so(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done >= 25:
            raise Stopped

    with pytest.raises(Stopped):
        SETTINGS.run(out=tmp_path, batch_size=5, progress=stop)
    with Transport.records(tmp_path) as store:
        assert "the same command goes on" in Transport.report(store).notes[0]
    assert SETTINGS.run(out=tmp_path).notes == ()
    with Transport.records(tmp_path) as store:
        keys = {(row["sigma"], row["sample"]) for row in store.rows(PICTURES.table)}
    assert keys == {(sigma, i) for sigma in (0.25, 0.75) for i in range(4)}


def test_an_image_has_the_same_noise_for_every_purifier_level_and_subset(tmp_path: Path) -> None:
    for name, run in (
        ("a", Transport(defense="onestep-edm", dataset="digits", n=4, sigmas="0.25")),
        ("b", Transport(defense="cm", dataset="digits", subset="2:4", sigmas="0.25,0.5")),
    ):
        run.run(out=tmp_path / name)
    with RecordStore.read(tmp_path / "a") as one, RecordStore.read(tmp_path / "b") as two:
        first = {row["sample"]: row for row in one.rows(PICTURES.table)}
        second = {row["sample"]: row for row in two.rows(PICTURES.table, {"sigma": 0.25})}
        assert set(second) == {2, 3}
        for i, row in second.items():
            assert row["noisy"] == first[i]["noisy"]
            assert row["clean"] == first[i]["clean"]
            assert row["purified"] != first[i]["purified"]


def test_an_estimate_counts_evaluations() -> None:
    study = Transport(
        defense="pf-ode",
        dataset="digits",
        n=5,
        sigmas="0.25,1.0",
        draws=2,
        options={"recipe": "truncated"},
    )
    loaded = study.load()
    assert study.total(loaded) == 20
    # 13 and 17 evaluations of the denoiser, one of the classifier
    assert study.cost(loaded).evaluations == 5 * 2 * (13 + 1 + 17 + 1)


def test_every_value_has_the_images_that_it_is_the_mean_of(tmp_path: Path) -> None:
    study = Transport(dataset="digits", n=8, sigmas="0.25", draws=2, multiples="1.25,2", tile=8)
    report = study.run(out=tmp_path)
    for at in (
        "transport",
        "accuracy",
        "markov[multiple=1.25].exceeds",
        "markov[multiple=2].bound",
    ):
        estimate = find(report.tree(), f"rows[sigma=0.25].{at}")
        assert sorted(estimate.images()) == list(range(8))
        assert np.mean(list(estimate.images().values())) == pytest.approx(estimate.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"draws": 0}, "draws 0 is not a whole number of 1 or more"),
        ({"kept": -1}, "kept -1 is not a whole number of 0 or more"),
        ({"sigmas": "0.25,-1"}, "-1"),
        ({"sigma": 0.5}, "sigma 0.5 means nothing here; give sigmas"),
        ({"t": 5}, "t 5 means nothing here; leave it out: sigma is the strength"),
        ({"multiples": "0.5,x"}, "x"),
        ({"multiples": "0"}, "multiple 0 is not above 0"),
        ({"policy": "majority:3"}, "policy 'majority:3' means nothing here"),
        ({"sigmas": "1000"}, "1000"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], words: str) -> None:
    given: dict[str, object] = {"defense": "cm", "dataset": "digits", "n": 2, "sigmas": "0.25"}
    with pytest.raises(BadInput) as caught:
        Transport(**(given | change)).load()  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_prints_draws_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["transport", "--dataset", "digits", "-n", "4", "--sigma", "0.25,0.5", "--quiet"]
    assert cli([*line, "--defense", "onestep-edm", "--out", "edm"]) == 0
    more = ["--against", "edm", "--plot", "t.png", "--grid", "g.png", "--grid-sigma", "0.5"]
    assert cli([*line, "--out", "cm", *more]) == 0
    out = capsys.readouterr().out
    assert "Markov" in out
    assert "NO" not in out
    assert (tmp_path / "t.png").stat().st_size > 10_000
    assert (tmp_path / "g.png").stat().st_size > 10_000
    assert cli([*line, "--out", "cm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["markov_holds"] is True
    assert [row["sigma"] for row in found["rows"]] == [0.25, 0.5]
    assert cli([*line, "--out", "cm", "--grid", "g.png", "--grid-sigma", "0.3"]) == 2
    assert "levels with pictures: 0.25, 0.5" in capsys.readouterr().err
    assert cli(["plot", "cm"]) == 0


def test_borders_have_to_fit(tmp_path: Path) -> None:
    images = torch.zeros(2, 1, 8, 8)
    with pytest.raises(BadInput, match="1 borders of row 'a' do not fit rows"):
        image_grid({"a": images}, tmp_path / "x.png", borders={"a": [True]})
    with pytest.raises(BadInput, match="row 'b'"):
        image_grid({"a": images}, tmp_path / "x.png", borders={"b": [True, False]})


def test_borders_are_green_where_right_and_red_where_wrong(tmp_path: Path) -> None:
    from matplotlib.image import imread

    def share(color: tuple[int, int, int], marks: list[bool | None]) -> float:
        path = image_grid({"a": torch.zeros(1, 1, 8, 8)}, tmp_path / "x.png", borders={"a": marks})
        pixels = np.round(255 * imread(path)[..., :3])
        return float((np.abs(pixels - np.array(color)).max(axis=2) < 3).mean())

    green, red = (0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)
    assert share(green, [True]) > 0.02
    assert share(red, [True]) == 0.0
    assert share(red, [False]) > 0.01
    assert share(green, [False]) == share(red, [None]) == share(green, [None]) == 0.0


def test_pictures_of_unlike_runs_are_refused(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        run = Transport(defense="none", dataset="digits", n=2, sigmas="0.25", seed=seed)
        run.run(out=tmp_path / name)
    with RecordStore.read(tmp_path / "a") as one, RecordStore.read(tmp_path / "b") as two:
        with pytest.raises(BadInput, match="run b has other noisy images"):
            draw_purified({"a": one, "b": two}, tmp_path / "x.png")
        with pytest.raises(BadInput, match="have no pictures in all runs"):
            draw_purified({}, tmp_path / "x.png")


# Two points


@pytest.mark.parametrize("t", [0.3, 1.0, 3.0])
def test_the_law_of_two_points_is_that_of_an_independent_quadrature(t: float) -> None:
    def density(y: float) -> float:
        return sum(math.exp(-((y - x) ** 2) / (2 * t**2)) for x in (-1, 1)) / (
            2 * t * math.sqrt(2 * math.pi)
        )

    law, far = two_point_law(t), 1 + 12 * t
    one = quad(lambda y: (1 - math.tanh(y / t**2) ** 2) * density(y), -far, far, limit=500)[0]
    ode = quad(lambda y: (1 - abs(math.tanh(y / t**2))) * density(y), -far, far, points=[0],
               limit=500)[0]  # fmt: skip
    assert law.one_shot == pytest.approx(one, abs=1e-8)
    # E[1 - m^2] is both the transport and the squared distance of a posterior mean.
    assert law.one_shot_squared == pytest.approx(one, abs=1e-8)
    assert law.ode == pytest.approx(ode, abs=1e-8)
    assert law.off_manifold == pytest.approx(ode, abs=1e-8)
    assert law.ode < law.one_shot
    assert law.ode_squared > law.one_shot_squared


def test_the_exact_denoiser_of_two_points_is_tanh_and_its_ode_the_sign() -> None:
    y = torch.tensor([-2.0, -0.5, 0.1, 0.7, 3.0]).double().reshape(-1, 1, 1, 1)
    for t in (0.5, 1.0, 2.0):
        assert torch.allclose(two_point_denoiser()(y, t), torch.tanh(y / t**2), atol=1e-12)
        chain = PFODE(sigma=t / 2).chain(two_point_denoiser())[1:]
        answer: Tensor = chain.run(y, Noise(None, torch.arange(5)))
        assert torch.allclose(answer, y.sign(), atol=1e-3)


def test_simulated_points_follow_the_law(tmp_path: Path) -> None:
    report = TwoPoint(noise="0.5,1,2", draws=4000).run(out=tmp_path)
    for level in report.levels:
        for mean, exact in (
            (level.one_shot, level.law.one_shot),
            (level.ode, level.law.ode),
            (level.off_one_shot, level.law.off_manifold),
        ):
            assert mean.std is not None
            assert abs(mean.value - exact) < Z * mean.std / math.sqrt(mean.n) + 1e-3
        assert level.off_ode.value < 1e-3
        spread = math.sqrt(level.law.wrong * (1 - level.law.wrong) / 4000)
        assert abs(level.wrong.value - level.law.wrong) < Z * spread
    assert TwoPoint(noise="2,1,0.5", draws=4000).load().settings == report.settings
    assert find(report.tree(), "rows[t=0.5].exact.ode") == report.levels[0].law.ode
    assert "closed form" in str(report.display())
    draws = simulate_two_points(0.5, 10, RandomnessConfig(0), nodes=18)
    assert draws.x.sum() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise": "0,1"}, "noise 0 is not 1e-06 or more"),
        ({"noise": "1,1"}, "noise levels 1,1 repeat a value"),
        ({"draws": 1}, "draws 1 is not a whole number of 2 or more"),
        ({"nodes": True}, "nodes True"),
    ],
)
def test_bad_two_point_settings_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words.replace(",", "[,]")):
        TwoPoint(**change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="is no noise"):
        two_point_law(0.0)
