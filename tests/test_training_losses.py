"""The losses of consistency models and restricted denoisers, against closed forms and fixtures."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.core.schedules import karras_grid
from advpure.data import DATASETS
from advpure.models import model_path
from advpure.networks import build_network
from advpure.networks.layers import seed_dropout
from advpure.networks.lpips import LPIPS
from advpure.networks.weights import LoadedNetwork, load_network, state_sha256
from advpure.training import Recipe, list_recipes, load_recipe, train
from advpure.training import distances as distances_module
from advpure.training.classifier_denoised import DenoisedClassifierTask
from advpure.training.consistency import ConsistencyTask
from advpure.training.consistency_training import ConsistencyTrainingTask
from advpure.training.consistency_tuning import ConsistencyTuningTask
from advpure.training.curricula import (
    improved_nodes,
    improved_probabilities,
    original_decay,
    original_nodes,
)
from advpure.training.distances import SETTINGS, make_distance, mean_absolute
from advpure.training.edm import EDMTask
from advpure.training.labelled import TOKENS
from advpure.training.levels import Levels
from advpure.training.randomness import step_generator
from advpure.training.run import _network, _teacher
from advpure.training.tasks import MAY_HAVE_TEACHER, NEEDS_TEACHER, TASKS, Batch, make_task
from advpure.training.trainer import Trainer

NETWORK = {"image_size": 8, "image_channels": 1, "channels": [8]}
RANGE = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}


class Zero(nn.Module):
    """A raw network that returns zero, so a consistency function returns c_skip x."""

    def __init__(self) -> None:
        """Have one parameter, for its device."""
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(x)


class Spy(nn.Module):
    """A raw network that notes the noise levels and inputs that it sees."""

    def __init__(self) -> None:
        """Have one parameter, and empty notes."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.levels: list[Tensor] = []
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return zero, and note noise levels and unscaled inputs."""
        level = (4 * noise).exp()
        self.levels.append(level.detach())
        scale = (level**2 + 0.25).sqrt()[:, None, None, None]
        self.inputs.append((x * scale).detach())
        return self.gain * torch.zeros_like(x)


def images(count: int, seed: int = 1, size: int = 8) -> Batch:
    pixels = torch.rand(count, 1, size, size, generator=step_generator(seed))
    return Batch(pixels, torch.arange(count) % 10)


def teacher(task: str, network: nn.Module | None = None, **facts: Any) -> LoadedNetwork:
    return LoadedNetwork((network or Zero()).eval(), {"task": task, **RANGE, **facts})


# Distances


def test_l1_and_l2_are_means_and_huber_is_over_the_whole_image() -> None:
    a, b = torch.zeros(1, 1, 2, 2), torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]]])
    made = {name: make_distance({**SETTINGS, "distance": name}) for name in ("l1", "l2", "huber")}
    c = 0.00054 * 2
    assert float(made["l1"](a, b)) == pytest.approx(7 / 4)
    assert float(made["l2"](a, b)) == pytest.approx(25 / 4)
    assert float(made["huber"](a, b)) == pytest.approx(math.sqrt(25 + c**2) - c, rel=1e-6)
    with pytest.raises(BadInput, match=r"distance .l3. is not known; did you mean l2"):
        make_distance({**SETTINGS, "distance": "l3"})


def test_the_constant_of_huber_on_cifar_is_the_published_one() -> None:
    a = torch.zeros(1, 3, 32, 32)
    small = torch.full_like(a, 1e-4)
    # |a - b|^2 = 3072e-8, c = .00054 sqrt(3072) = .02993
    expected = math.sqrt(3072e-8 + 0.02993**2) - 0.02993
    huber = make_distance({**SETTINGS, "distance": "huber"})
    assert float(huber(a, small)) == pytest.approx(expected, rel=1e-3)


def test_lpips_weights_that_are_missing_name_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match="run advpure data lpips --from FILE"):
        make_distance({**SETTINGS, "distance": "lpips"})


# Curricula


def test_the_original_curriculum_grows_by_its_formula() -> None:
    assert [original_nodes(k, 800_000) for k in (0, 1, 200_000, 400_000, 800_000)] == [
        2, 3, 76, 107, 151,
    ]  # fmt: skip
    # by hand, with 151^2 - 2^2 = 22797: a quarter gives ceil(sqrt(4 + 5699.25) - 1) + 1 =
    # ceil(74.52) + 1, a half ceil(sqrt(4 + 11398.5) - 1) + 1 = ceil(105.78) + 1
    counts = [original_nodes(k, 1000) for k in range(1001)]
    assert counts == sorted(counts)
    assert original_nodes(1000, 1000, 2, 200) == 201
    assert original_decay(2) == pytest.approx(0.9)
    assert original_decay(151) == pytest.approx(0.9 ** (2 / 151))
    assert original_decay(10, first=2, start=0.95) == pytest.approx(0.95**0.2)


def test_the_improved_curriculum_doubles_in_equal_times() -> None:
    # K' = floor(400,000 / (log2 128 + 1)) = 50,000
    at = [0, 49_999, 50_000, 100_000, 150_000, 200_000, 250_000, 300_000, 350_000, 399_999]
    counts = [11, 11, 21, 41, 81, 161, 321, 641, 1281, 1281]
    assert [improved_nodes(k, 400_000) for k in at] == counts
    assert [improved_nodes(k, 4) for k in range(4)] == [11, 21, 41, 81]  # K' is at least 1


def test_improved_probabilities_are_those_of_a_lognormal_between_the_nodes() -> None:
    grid = karras_grid(11)[::-1]
    inside = np.diff(norm.cdf(np.log(grid), loc=-1.1, scale=2.0))
    expected = inside / inside.sum()
    assert np.allclose(improved_probabilities(grid), expected, atol=1e-12)
    assert improved_probabilities(grid).sum() == pytest.approx(1.0)
    fine = karras_grid(1281)[::-1]
    middle = fine[np.argmax(improved_probabilities(fine) / np.diff(np.log(fine)))]
    assert math.log(middle) == pytest.approx(-1.1, abs=0.05)  # the density peaks at P


# Consistency training


def trained(losses: str, **settings: Any) -> ConsistencyTrainingTask:
    task = ConsistencyTrainingTask("digits", {"losses": losses, "distance": "l2", **settings})
    task.begin_step(0, 8)
    return task


@pytest.mark.parametrize("losses", ["original", "improved"])
def test_both_ends_share_image_and_noise_and_are_neighbours(losses: str) -> None:
    task, spy, batch = trained(losses, first=10), Spy(), images(40)
    task.start(spy)
    target = spy if task.target is None else task.target
    task.losses(spy, batch, step_generator(3))
    assert isinstance(target, Spy)
    (low, high) = (target.levels[0], spy.levels[-1])
    (below, above) = (target.inputs[0], spy.inputs[-1])
    place = {round(float(level), 4): k for k, level in enumerate(task.grid)}
    pairs = [
        (place[round(float(s), 4)], place[round(float(t), 4)])
        for s, t in zip(low, high, strict=True)
    ]
    assert all(t == s + 1 for s, t in pairs)
    clean = 2 * batch.images - 1
    z_low = (below - clean) / low[:, None, None, None]
    z_high = (above - clean) / high[:, None, None, None]
    kept = low > 0.05  # below, dividing by the level amplifies float32 rounding
    assert torch.allclose(z_low[kept], z_high[kept], atol=1e-3)
    assert len(low[kept]) > 3


def test_the_improved_loss_weights_by_the_inverse_step() -> None:
    # With a raw network of zero, f(y, t) = c_skip(t) y: the loss is known.
    task, batch = trained("improved"), images(30)
    found = task.losses(Zero(), batch, step_generator(5))
    generator = step_generator(5)
    node = torch.multinomial(task.weights, 30, True, generator=generator)
    noise = torch.randn(batch.images.shape, generator=generator)
    s, t = task.grid[node], task.grid[node + 1]
    clean = 2 * batch.images - 1

    def f(level: Tensor) -> Tensor:
        skip = 0.25 / ((level - 0.002) ** 2 + 0.25)
        return skip[:, None, None, None] * (clean + level[:, None, None, None] * noise)

    expected = (f(t) - f(s)).square().flatten(1).mean(1) / (t - s)
    assert torch.allclose(found, expected, rtol=1e-4)


def test_improved_nodes_are_drawn_as_often_as_they_should() -> None:
    task, spy = trained("improved"), Spy()
    count = 20_000
    task.losses(spy, Batch(torch.zeros(count, 1, 1, 1), torch.zeros(count)), step_generator(1))
    drawn = torch.bucketize(spy.levels[0], task.grid * 1.0001)
    rates = torch.bincount(drawn, minlength=len(task.grid))[:-1] / count
    # ten rates, 5 standard errors each: alpha 6e-6 together
    assert (rates - task.weights).abs().max() < 5 * math.sqrt(0.25 / count)


def test_the_original_target_is_a_moving_average_with_decay_mu() -> None:
    task, network = trained("original", decay=0.9), nn.Linear(2, 1, bias=False)
    nn.init.ones_(network.weight)
    task.start(network)
    nn.init.constant_(network.weight, 3.0)
    task.end_step(network)  # N = 2 at the first step: mu = .9
    assert task.target is not None
    assert torch.allclose(task.state()["weight"], torch.full((1, 2), 0.9 + 0.3))
    task.begin_step(8, 8)
    assert task.nodes == 151
    task.end_step(network)
    mu = 0.9 ** (2 / 151)
    assert torch.allclose(task.state()["weight"], torch.full((1, 2), mu * 1.2 + (1 - mu) * 3))


@pytest.mark.parametrize("losses", ["original", "improved"])
def test_the_target_gets_no_gradient_and_sees_the_same_dropout(losses: str) -> None:
    network = build_network("unet", {**NETWORK, "dropout": 0.5}, step_generator(0)).train()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=step_generator(1)))
    task = trained(losses)
    task.start(network)
    # one grid step of zero width: both ends are the same state, and so the same output
    task.grid = torch.tensor([1.0, 1.0, 1.0])
    task.nodes, task.weights = 3, torch.tensor([0.5, 0.5], dtype=torch.float64)
    generator = step_generator(4)

    seed_dropout(network, generator)
    lost = task.losses(network, images(4), generator)
    if losses == "improved":
        assert torch.isnan(lost).all()  # 0 / 0: equal outputs over an empty step
    else:
        assert torch.equal(lost, torch.zeros(4))
    again = trained(losses)
    again.start(network)
    seed_dropout(network, generator)
    again.losses(network, images(4), generator).sum().backward()  # type: ignore[no-untyped-call]
    assert network.get_parameter("leave.weight").grad.abs().max() > 0  # type: ignore[union-attr]
    if again.target is not None:
        assert all(parameter.grad is None for parameter in again.target.parameters())


# Consistency fine-tuning


@pytest.mark.parametrize("losses", ["original", "improved"])
def test_a_network_with_classes_learns_of_the_classes_that_it_sees(losses: str) -> None:
    network = build_network("unet", {**NETWORK, "classes": 10}, step_generator(0))
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=step_generator(1)))
    task, labels = trained(losses, first=4), torch.tensor([3, 3, 7, 3])
    task.start(network)
    batch = Batch(images(4).images, labels)
    task.losses(network, batch, step_generator(4)).sum().backward()  # type: ignore[no-untyped-call]
    told = network.get_parameter(TOKENS).grad
    assert told is not None
    assert told.abs().sum(1).nonzero().flatten().tolist() == [3, 7]
    others = Batch(batch.images, (labels + 1) % 10)
    scores = [task.score(network, each, step_generator(5)) for each in (batch, others)]
    assert not torch.allclose(*scores)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_fine_tuning_draws_its_levels_and_asks_at_the_nearest_node(kind: str) -> None:
    chosen: dict[str, Any] = {"discrete": {}, "continuous": {"sigma_range": [0.0, 1.0]}}[kind]
    source = teacher("consistency", nodes=18)
    task = ConsistencyTuningTask("digits", {"distance": "l2", **chosen}, source)
    spy, batch = Spy(), images(300, size=16)
    task.losses(spy, batch, step_generator(2))
    (node,), (noisy,) = spy.levels, spy.inputs
    grid = torch.as_tensor(karras_grid(18), dtype=torch.float32)
    assert torch.cdist(node[:, None], grid[:, None]).min(dim=1).values.max() < 1e-3
    level = (noisy - (2 * batch.images - 1)).flatten(1).std(dim=1)
    if kind == "discrete":
        values = torch.tensor([0.5, 1.0, 2.0])
        rounded = values[(level[:, None] - values).abs().argmin(1)]
        # 256 values give the level to 1/sqrt(512) = 4.4 %, 5 standard errors are 22 %
        assert ((level / rounded) - 1).abs().max() < 0.25
        counts = [int((rounded == value).sum()) for value in values]
        assert min(counts) > 60  # binomial(300, 1/3): mean 100, deviation 8.2
        nearest = {0.5: 0.58535, 1.0: 1.08817, 2.0: 1.92334}  # published fixtures
        for value, expected in nearest.items():
            assert node[rounded == value].unique().tolist() == pytest.approx([expected], abs=1e-4)
    else:
        # U[0, 2] in model units: mean 1, a standard error of 2 / sqrt(12 * 300) = .033
        assert float(level.mean()) == pytest.approx(1.0, abs=0.18)
        assert len(node.unique()) > 6


def test_the_fine_tuning_loss_is_the_distance_to_the_clean_image() -> None:
    source = teacher("consistency", nodes=18)
    batch = images(10)
    for name, reduce in (("l1", torch.Tensor.abs), ("l2", torch.Tensor.square)):
        task = ConsistencyTuningTask("digits", {"distance": name, "sigmas": [0.5]}, source)
        found = task.losses(Zero(), batch, step_generator(7))
        generator = step_generator(7)
        torch.randint(0, 1, (10,), generator=generator)
        noise = torch.randn(batch.images.shape, generator=generator)
        clean = 2 * batch.images - 1
        grid = karras_grid(18)
        node = float(grid[np.argmin(np.abs(grid - 1.0))])
        out = 0.25 / ((node - 0.002) ** 2 + 0.25) * (clean + 1.0 * noise)
        assert torch.allclose(found, reduce(out - clean).flatten(1).mean(1), rtol=1e-4)


def test_fine_tuning_trains_the_online_network_alone() -> None:
    network = build_network("unet", NETWORK, step_generator(0))
    frozen = build_network("unet", NETWORK, step_generator(0)).requires_grad_(False)
    task = ConsistencyTuningTask(
        "digits", {"distance": "l1"}, teacher("consistency", frozen, nodes=18)
    )
    task.losses(network, images(4), step_generator(0)).sum().backward()  # type: ignore[no-untyped-call]
    assert network.get_parameter("leave.weight").grad.abs().max() > 0  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_lpips_trains_through_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in, generator = LPIPS((4, 4, 4, 4, 4)), step_generator(6)
    for parameter in stand_in.features.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    for weight in stand_in.linear:
        nn.init.ones_(weight)

    def load(path: object, size: int) -> LPIPS:
        stand_in.size = size
        return stand_in.requires_grad_(False)

    monkeypatch.setattr(distances_module, "load_lpips", load)
    task = ConsistencyTuningTask("digits", {"lpips_size": 16}, teacher("consistency", nodes=18))
    network = build_network("unet", {**NETWORK, "image_channels": 3}, step_generator(0))
    batch = Batch(torch.rand(3, 3, 8, 8, generator=step_generator(1)), torch.zeros(3))
    lost = task.losses(network, batch, step_generator(0))
    lost.sum().backward()  # type: ignore[no-untyped-call]
    assert (lost > 0).all()
    assert network.get_parameter("leave.weight").grad.abs().max() > 0  # type: ignore[union-attr]


# Restricted noise


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ({"sigmas": [0.25]}, 0.5, 0.5),
        ({"sigmas": [0.25, 0.5, 1.0]}, 0.5, 2.0),
        ({"sigma_range": [0.0, 0.25]}, 0.002, 0.5),
        ({"sigma_range": [0.0, 1.0]}, 0.002, 2.0),
    ],
)
def test_restricted_denoisers_see_twice_these_levels(
    settings: dict[str, Any], low: float, high: float
) -> None:
    task, spy = EDMTask("digits", settings), Spy()
    lost = task.losses(spy, images(500), step_generator(1))
    assert torch.isfinite(lost).all()
    (levels,) = spy.levels
    assert float(levels.min()) >= low * 0.999
    assert float(levels.max()) <= high * 1.001
    assert float(levels.max()) > 0.95 * high
    count = len(settings.get("sigmas", []))
    assert (len(levels.unique()) == count) if count else (len(levels.unique()) > 480)
    assert "trained_sigma" in task.facts()


def test_levels_are_checked() -> None:
    assert str(Levels((0.25, 1.0))) == "{0.25, 1}"
    assert str(Levels((), 0.0, 0.25)) == "U[0, 0.25]"
    for settings, message in (
        ({"sigmas": [0.1], "sigma_range": [0, 1]}, "exclude each other"),
        ({"sigmas": [], "sigma_range": []}, "exclude each other"),
        ({"sigmas": [], "sigma_range": [1, 0]}, "is no interval"),
        ({"sigmas": [0.0], "sigma_range": []}, "are not all positive"),
    ):
        with pytest.raises(BadInput, match=message):
            Levels.of(settings)


# Classifier behind a denoiser


def test_the_denoised_classifier_sees_clipped_denoised_images() -> None:
    source = load_network(model_path("digits-classifier"))
    settings = {"denoiser": "digits-edm", "sigmas": [0.25]}
    task = DenoisedClassifierTask("digits", settings, source)
    batch = images(6)
    purified = task.purify(batch.images, step_generator(3))
    generator = step_generator(3)
    torch.randint(0, 1, (6,), generator=generator)
    noise = torch.randn(batch.images.shape, generator=generator)
    with torch.no_grad():
        expected = (task.denoiser(2 * batch.images - 1 + 0.5 * noise, 0.5) + 1) / 2
    assert torch.allclose(purified, expected.clamp(0, 1), atol=1e-5)
    assert task.metric(source.network) > 0.5
    for wrong, message in (
        ({"sigmas": [0.25]}, "denoiser is not given"),
        ({"denoiser": "digits-classifier", "sigmas": [0.25]}, "is no denoiser"),
    ):
        with pytest.raises(BadInput, match=message):
            DenoisedClassifierTask("digits", wrong, source)
    with pytest.raises(BadInput, match="teacher is no classifier"):
        DenoisedClassifierTask("digits", settings, teacher("edm"))


# Every task through the shared trainer

STARTS = {
    "consistency": "digits-edm",
    "consistency-tuning": "digits-cm",
    "classifier-denoised": "digits-classifier",
    "calibration": "digits-edm",
    "consistency-unconditional": "digits-cm",
    "joint": "digits-classifier",
}
CASES: dict[str, dict[str, Any]] = {
    "edm": {"sigmas": [0.25]},
    "consistency": {"distance": "l1", "nodes": 6},
    "consistency-training": {"losses": "original", "distance": "l2"},
    "consistency-training/improved": {"losses": "improved"},
    "consistency-tuning": {"distance": "l2"},
    "classifier": {},
    "classifier-denoised": {"denoiser": "digits-edm", "sigmas": [0.5]},
    "classifier-smoothed": {"sigmas": [0.25], "noises": 2, "consistency": 5.0},
    "classifier-adversarial": {"norm": "l2", "eps": 0.5, "held_back": 20},
    "joint": {"generator": "digits-cm", "fake_steps_every": 2, "held_back": 20},
    "calibration": {"guide": "digits-classifier", "diversity": 0.5},
    "consistency-unconditional": {"edm": "digits-edm", "distance": "l1", "nodes": 6},
    "selector": {"certified": "digits-classifier", "sigmas": [0.25], "draws": 2},
}


RARE = ("calibration", "consistency-unconditional", "consistency-training/improved")


def test_every_task_has_a_case() -> None:
    apart = {"representation", "representation-tuning", "levelled"}  # tests/test_representation.py
    assert {case.partition("/")[0] for case in CASES} == set(TASKS.names()) - apart
    assert set(STARTS) == NEEDS_TEACHER - apart


def recipe_of(case: str) -> Recipe:
    task = case.partition("/")[0]
    judges = task.startswith("classifier") or task in ("selector", "joint")
    fresh = {"image_channels": 1, "classes": 2 if task == "selector" else 10, "channels": [8]}
    shape = fresh if judges else {**NETWORK, "dropout": 0.1}
    return Recipe(
        name="case", about="A case", task=task, dataset="digits", steps=6, batch=8, seed=2,
        architecture="resnet" if judges else "unet",
        network={} if task in NEEDS_TEACHER else shape,
        teacher=STARTS.get(task), loss=CASES[case], validate_every=3, optimizer="radam",
        autocast=True, channels_last=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in RARE else []) for case in CASES],
)
def test_every_task_resumes_bit_for_bit_and_exports(case: str, tmp_path: Path) -> None:
    recipe = recipe_of(case)
    whole = train(recipe, out=tmp_path / "whole", progress=False)
    interrupt(recipe, tmp_path / "parts", 4)
    parts = train(recipe, out=tmp_path / "parts", progress=False)
    one, two = load_network(whole.weights), load_network(parts.weights)
    for (name, a), b in zip(
        one.network.state_dict().items(), two.network.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    lines = [(tmp_path / run / "log.csv").read_text().splitlines() for run in ("whole", "parts")]
    assert [row.split(",")[::3] for row in lines[0]] == [row.split(",")[::3] for row in lines[1]]
    kind = one.metadata["task"]
    assert kind in ("edm", "consistency", "classifier", "selector", "joint")
    if kind == "consistency":
        nodes = {"consistency": 6, "consistency-tuning": 18, "consistency-unconditional": 6}
        assert one.metadata["nodes"] == nodes.get(recipe.task, 1281 if "improved" in case else 151)
    assert (tmp_path / "whole" / "case.md").read_text().startswith("# case\n")


def interrupt(recipe: Recipe, folder: Path, step: int) -> None:
    """Leave a checkpoint as a run that was stopped after a step leaves it."""
    start, _ = _teacher(recipe)
    network, _ = _network(recipe, start)
    task = make_task(recipe, start)
    data = task.divide(DATASETS.get(recipe.dataset).read("train"))
    teacher = None if start is None else state_sha256(start.network)
    Trainer(recipe, task, network, data, folder, teacher=teacher).run(step)


# Recipes


def test_a_recipe_takes_what_it_does_not_say_from_its_base(tmp_path: Path) -> None:
    base = load_recipe("cifar10-cm")
    tuned, squared = load_recipe("cifar10-cm-ft"), load_recipe("cifar10-cm-ft-l2")
    assert tuned.batch == base.batch
    assert tuned.steps != base.steps
    assert "nodes" not in tuned.loss  # another task: nothing of the loss is taken over
    assert squared.loss == {**tuned.loss, "distance": "l2"}
    for name, changes in (("a", 'base = "b.toml"\n'), ("b", 'base = "a.toml"\n')):
        (tmp_path / f"{name}.toml").write_text(changes)
    with pytest.raises(BadInput, match="too long a line of bases"):
        load_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_s_loss_settings_are_known_to_its_task(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(name)
    recipe = dataclasses.replace(recipe, dataset="digits")
    monkeypatch.setattr(distances_module, "load_lpips", lambda *_: mean_absolute)
    starts = {
        "consistency": teacher("edm"),
        "consistency-tuning": teacher("consistency", nodes=18),
        "classifier-denoised": load_network(model_path("digits-classifier")),
        "calibration": teacher("edm"),
        "consistency-unconditional": load_network(model_path("digits-cm")),
        "representation-tuning": teacher("representation", nodes=81),
        "joint": load_network(model_path("digits-classifier")),
    }
    if recipe.task == "joint":
        settings = {"generator": "digits-cm", "labeller": "digits-classifier"}
        recipe = dataclasses.replace(recipe, loss={**recipe.loss, **settings})
    if recipe.task == "classifier-denoised":
        recipe = dataclasses.replace(recipe, loss={**recipe.loss, "denoiser": "digits-edm"})
    if "edm" in recipe.loss:
        recipe = dataclasses.replace(recipe, loss={**recipe.loss, "edm": "digits-edm"})
        starts["consistency"] = load_network(model_path("digits-cm"))
    if recipe.task == "calibration":
        recipe = dataclasses.replace(recipe, loss={**recipe.loss, "guide": "digits-classifier"})
    if recipe.task not in MAY_HAVE_TEACHER:
        assert (recipe.teacher is not None) == (recipe.task in NEEDS_TEACHER)
    make_task(recipe, starts.get(recipe.task))


def test_the_seven_restricted_denoisers_differ_in_their_noise_alone() -> None:
    names = ("025", "050", "100", "three", "low", "wide", "all")
    recipes = [load_recipe(f"cifar10-noise-{name}") for name in names]
    plain = {
        json.dumps(dataclasses.asdict(dataclasses.replace(r, name="same", about="same", loss={})))
        for r in recipes
    }
    assert len(plain) == 1
    drawn = [Levels.of({"sigmas": [], "sigma_range": [], **r.loss}) for r in recipes[:-1]]
    assert [str(levels) for levels in drawn] == [
        "{0.25}", "{0.5}", "{1}", "{0.25, 0.5, 1}", "U[0, 0.25]", "U[0, 1]",
    ]  # fmt: skip
    assert "sigmas" not in recipes[-1].loss


def test_distillation_pulls_dropout_masks_together() -> None:
    # a teacher whose trajectories stand still, and equal levels: both branches are the same call
    network = build_network("unet", {**NETWORK, "dropout": 0.5}, step_generator(0)).train()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=step_generator(1)))
    task = ConsistencyTask("digits", {"distance": "l2"}, teacher("edm"))
    task.grid = torch.ones(18)
    generator = step_generator(4)

    seed_dropout(network, generator)
    assert torch.equal(task.losses(network, images(4), generator), torch.zeros(4))
