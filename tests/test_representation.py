"""Consistent representations: the loss in closed form, schedules, views, resuming, fine-tuning."""

import colorsys
import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import binom, multivariate_normal
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.units import to_unit
from advpure.core.analytic import GaussianDenoiser
from advpure.core.schedules import karras_grid
from advpure.data import DATASETS
from advpure.networks import build_network
from advpure.networks.representation import RepresentationNetwork
from advpure.networks.weights import load_network, save_network
from advpure.training import load_recipe, train
from advpure.training.contrastive import info_nce
from advpure.training.curricula import representation_nodes, sigmoid_decay
from advpure.training.randomness import normal, step_generator
from advpure.training.representation import RepresentationTask
from advpure.training.representation_tuning import RepresentationTuningTask
from advpure.training.tasks import Batch, make_task
from advpure.training.trainer import Trainer
from advpure.training.views import VIEWS, Views, blur_images, change_colours, crop_images

SHAPE = {"image_channels": 1, "channels": [4, 8], "embedding": 8}
PLAIN = {
    "crop": 1.0, "jitter": [0.0] * 4, "jitter_share": 0.0, "grey": 0.0, "blur": [0.0, 0.0],
    "solarize": 0.0, "mirror": False,
}  # fmt: skip


class Linear(RepresentationNetwork):
    """The encoder E(x) = w x, whose projection is itself and whose norm is left out."""

    def __init__(self, weight: Tensor) -> None:
        """Keep the weight."""
        super().__init__(width=len(weight), hidden=0, projection=1, classes=0, normed=False)
        self.weight = nn.Parameter(weight)
        self.projection_head = nn.Sequential(nn.Identity())
        self.norm = nn.Identity()  # type: ignore[assignment]

    def encode(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return w x."""
        return x.flatten(1) @ self.weight.T


def prepared(network: nn.Module, nodes: int = 81, **settings: Any) -> RepresentationTask:
    task = RepresentationTask("digits", {**PLAIN, **settings})
    task.start(network)
    task._lay_grid(nodes)
    return task


# --- the contrastive loss


def test_it_is_the_cross_entropy_of_the_diagonal() -> None:
    q, k = (torch.randn(7, 5, generator=step_generator(s), dtype=torch.float64) for s in (1, 2))
    cosines = np.array([[float(F.cosine_similarity(a, b, 0)) for b in k] for a in q]) / 0.2
    expected = np.log(np.exp(cosines).sum(1)) - np.diag(cosines)
    np.testing.assert_allclose(info_nce(q, k, 0.2).numpy(), expected, rtol=1e-12)
    # scaling does not matter, permuting both sides permutes the losses
    torch.testing.assert_close(info_nce(3 * q, 0.1 * k), info_nce(q, k))
    order = torch.randperm(7, generator=step_generator(3))
    torch.testing.assert_close(info_nce(q[order], k[order]), info_nce(q, k)[order])
    # the same similarities read along the columns are the loss of the keys
    backwards = np.log(np.exp(cosines).sum(0)) - np.diag(cosines)
    np.testing.assert_allclose(info_nce(k, q, 0.2).numpy(), backwards, rtol=1e-12)


def test_gradient_flows_through_the_queries_alone() -> None:
    q, k = (torch.randn(4, 3, generator=step_generator(s)).requires_grad_() for s in (1, 2))
    info_nce(q, k).sum().backward()  # type: ignore[no-untyped-call]
    assert k.grad is None
    assert q.grad is not None
    assert float(q.grad.norm()) > 0.1


# --- schedules


@pytest.mark.parametrize(("steps", "period"), [(300_000, 129_203), (600_000, 258_406)])
def test_the_grid_is_refined_as_in_the_released_code(steps: int, period: int) -> None:
    at = (0, 1, period, period + 1, steps)
    assert [representation_nodes(k, steps) for k in at] == [21, 41, 41, 81, 81]


def test_the_decay_has_the_published_values() -> None:
    shares = (0, 10, 25, 50, 100)
    steep = [round(sigmoid_decay(k, 100), 6) for k in shares]
    flat = [round(sigmoid_decay(k, 100, sharpness=10.0), 6) for k in shares]
    assert steep == [0.99, 0.996308, 0.999451, 0.999889, 0.9999]
    # The last is 0.999899 or 0.9999 by rounding: 2 / (1 + e^-10) - 1 is short of 1 by 9e-5.
    np.testing.assert_allclose(flat, [0.99, 0.994592, 0.998411, 0.999769, 0.999899], atol=1.1e-6)


# --- the three terms


def test_two_gaussian_clusters_and_one_direction_have_a_closed_form() -> None:
    # Images c m + s e with c = +-1 seen by E(x) = w x with one number: cosines are +-1, so the loss
    # is a sum over how many of the other keys have the sign of the query, a fair coin each.
    rows, tau, spread, m = 4, 0.5, 0.3, 0.8
    network = Linear(torch.tensor([[1.0]]))
    task = prepared(network, contrastive=0.0, temperature=tau, one_level=0.5)
    assert task.only is not None
    t, s = (float(task.grid[task.only + k]) for k in (0, 1))
    cov = [[spread**2 + t**2, spread**2 + t * s], [spread**2 + t * s, spread**2 + s**2]]
    both = multivariate_normal([0.0, 0.0], cov).cdf([m, m])
    low = multivariate_normal([0.0, 0.0], cov).cdf([-m, -m])
    same = both + low  # both noisy values keep the side of their cluster, or both leave it
    expected = 0.0
    for k in range(rows):
        chance = binom.pmf(k, rows - 1, 0.5)
        rest = rows - 1 - k
        agree = -1 / tau + math.log((k + 1) * math.exp(1 / tau) + rest * math.exp(-1 / tau))
        differ = 1 / tau + math.log(k * math.exp(1 / tau) + (rest + 1) * math.exp(-1 / tau))
        expected += chance * (same * agree + (1 - same) * differ)
    pen, losses = step_generator(5), []
    for _ in range(1500):
        sides = 2.0 * torch.randint(0, 2, (rows, 1, 1, 1), generator=pen) - 1
        images = to_unit(m * sides + spread * normal((rows, 1, 1, 1), pen))
        with torch.no_grad():
            losses.append(float(task.losses(network, Batch(images, sides), pen).mean()))
    error = np.std(losses, ddof=1) / math.sqrt(len(losses))
    assert abs(np.mean(losses) - expected) < 4.42 * error  # alpha 1e-5
    assert error < 0.02 * expected


def test_a_representation_that_is_constant_along_trajectories_costs_nothing() -> None:
    # The first pixel is free of noise as the representation reads it: it names the image.
    class Oracle(Linear):
        def encode(self, x: Tensor, noise: Tensor) -> Tensor:
            rows = torch.arange(len(x)) % 6
            return F.one_hot(rows, 6).float() + 0 * self.weight.sum()

    batch = Batch(torch.rand(6, 1, 2, 2, generator=step_generator(0)), torch.zeros(6).long())
    for tau in (0.2, 0.02):
        network = Oracle(torch.zeros(6, 4))
        task = prepared(network, contrastive=0.0, temperature=tau)
        lost = task.losses(network, batch, step_generator(1))
        # the alignment is perfect; what is left is how far the six images are apart
        expected = math.log(1 + 5 * math.exp(-1 / tau))
        torch.testing.assert_close(lost, torch.full((6,), expected), rtol=1e-4, atol=1e-7)
    assert float(lost.detach().max()) < 1e-6


def test_the_contrastive_terms_undo_a_collapse() -> None:
    # All images in almost one direction: every term has its largest value for equal rows, log B.
    pen = step_generator(3)
    start = torch.ones(4, 16) + 1e-3 * normal((4, 16), pen)
    images = 0.6 + 0.4 * torch.rand(12, 1, 4, 4, generator=pen)  # 0.2 to 1 as the network sees it
    batch = Batch(images, torch.zeros(12).long())

    def spread(network: Linear) -> float:
        directions = F.normalize((2 * images - 1).flatten(1) @ network.weight.detach().T, dim=1)
        return 1.0 - float((directions @ directions.T).mean())

    network = Linear(start.clone())
    task = prepared(network, consistency=0.0)
    lost = task.losses(network, batch, step_generator(4))
    torch.testing.assert_close(lost, torch.full((12,), 2 * math.log(12)), rtol=1e-3, atol=0)
    before = spread(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for k in range(60):
        optimizer.zero_grad()
        task.losses(network, batch, step_generator(5, k)).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert before < 1e-5
    assert spread(network) > 0.3


def test_the_terms_are_those_of_the_formula() -> None:
    network = build_network(
        "conv-encoder", {**SHAPE, "hidden": 8, "projection": 4}, step_generator(0)
    )
    task = prepared(network, one_level=0.5)
    assert isinstance(network, RepresentationNetwork)
    batch = Batch(torch.rand(5, 1, 8, 8, generator=step_generator(1)), torch.zeros(5).long())
    with torch.no_grad():
        found = task.losses(network, batch, step_generator(2))
        x, z = 2 * batch.images - 1, normal((5, 1, 8, 8), step_generator(2))
        assert task.only is not None
        t, s, end = (float(task.grid[k]) for k in (task.only, task.only + 1, -1))

        def features(state: Tensor, level: float, net: RepresentationNetwork) -> Tensor:
            scaled = state / math.sqrt(level**2 + 0.25)
            return net.features(scaled, torch.full((5,), math.log(level) / 4))

        target = task.target
        assert target is not None
        clean = x + end * z  # both views: the views change nothing here
        query = network.project(features(clean, end, network))
        key = target.project(features(clean, end, target))
        apart = info_nce(features(x + t * z, t, network), features(x + s * z, s, network))
    torch.testing.assert_close(found, 2 * info_nce(query, key) + apart, rtol=1e-4, atol=1e-5)
    only = prepared(network, one_level=0.5, consistency=0.5, contrastive=0.0)
    with torch.no_grad():
        half = only.losses(network, batch, step_generator(2))
    torch.testing.assert_close(half, 0.5 * apart, rtol=1e-4, atol=1e-5)


def test_the_trajectory_may_be_the_ode() -> None:
    denoiser = GaussianDenoiser(torch.zeros(1, 2, 2), 0.6).float()
    task = prepared(Linear(torch.ones(1, 4)))
    task.denoiser = denoiser
    x, z = normal((3, 1, 2, 2), step_generator(1)), normal((3, 1, 2, 2), step_generator(2))
    levels = karras_grid(801)
    t, s = float(levels[400]), float(levels[401])
    exact = (x + t * z) * math.sqrt((0.6 + s**2) / (0.6 + t**2))
    torch.testing.assert_close(task._earlier(x, z, t, s), exact, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(exact, x + s * z, atol=1e-4)
    with pytest.raises(BadInput, match="trajectory ode needs a denoiser; give both"):
        RepresentationTask("digits", {"trajectory": "ode"})
    with pytest.raises(BadInput, match="denoiser digits-edm means nothing to trajectory noise"):
        RepresentationTask("digits", {"denoiser": "digits-edm"})
    RepresentationTask("digits", {"trajectory": "ode", "denoiser": "digits-edm"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": 90}, "first 90 is above last 80; lower it"),
        ({"decay_start": 0.9999}, "decay_start 0.9999 is not below decay_end 0.9999"),
        ({"contrastive": 0.0, "consistency": 0.0}, "leave no loss; raise one"),
        ({"jitter": [0.1]}, r"jitter \[0.1\] does not have 4 numbers"),
        ({"crop": 0.0}, "crop 0 is not above 0"),
        ({"temperature": 0.0}, "temperature 0 is not"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RepresentationTask("digits", settings)


# --- views


def pictures(count: int = 6, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(count, channels, side, side, generator=step_generator(9))


def test_views_stay_in_range_and_are_a_function_of_the_generator() -> None:
    views = Views.of(VIEWS)
    first, second = views.pair(pictures(), step_generator(1))
    assert first.shape == second.shape == (6, 3, 16, 16)
    assert min(float(first.min()), float(second.min())) >= 0
    assert max(float(first.max()), float(second.max())) <= 1
    again = views.pair(pictures(), step_generator(1))
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, views.pair(pictures(), step_generator(2))[0])
    one, _ = views.pair(pictures(channels=1), step_generator(1))
    assert one.shape == (6, 1, 16, 16)


def test_nothing_is_changed_where_every_strength_is_zero() -> None:
    for view in Views.of(PLAIN).pair(pictures(), step_generator(1)):
        torch.testing.assert_close(view, pictures(), rtol=0, atol=1e-5)


def test_a_crop_stretches_a_rectangle_of_the_image() -> None:
    # Of an image that is its own coordinates, a crop is again linear in the coordinates.
    at = torch.arange(32) + 0.5
    ramp = torch.stack([at[None, :].expand(32, 32), at[:, None].expand(32, 32)]) / 32
    cut = crop_images(ramp.expand(200, -1, -1, -1), 0.08, step_generator(1)).double()
    inner = cut[:, :, 8:24, 8:24]
    across, down = (inner[:, 0, 0].diff(dim=1) * 32), (inner[:, 1, :, 0].diff(dim=1) * 32)
    torch.testing.assert_close(across, across[:, :1].expand_as(across), rtol=0, atol=1e-3)
    area = (across[:, 0] * down[:, 0]).numpy()
    ratio = (across[:, 0] / down[:, 0]).numpy()
    assert 0.07 < area.min() < 0.15
    assert 0.9 < area.max() <= 1.001
    assert 0.74 < ratio.min() < ratio.max() < 1.35


def test_colours_are_those_of_colorsys() -> None:
    images = pictures(3, side=4)
    turned = change_colours(images, (0.0, 0.0, 0.0, 0.3), step_generator(1))
    turn = 0.3 * (2 * torch.rand(4, 3, generator=step_generator(1)) - 1)[3]
    for k in range(3):
        for pixel in range(16):
            colour = images[k].flatten(1)[:, pixel].tolist()
            hue, saturation, value = colorsys.rgb_to_hsv(*colour)
            expected = colorsys.hsv_to_rgb((hue + float(turn[k])) % 1, saturation, value)
            found = turned[k].flatten(1)[:, pixel].tolist()
            assert found == pytest.approx(expected, abs=1e-5)


def test_blurring_is_that_of_scipy() -> None:
    images = pictures(4, 2)
    found = blur_images(images, step_generator(1))
    deviations = 0.1 + 1.9 * torch.rand(4, generator=step_generator(1))
    for k, deviation in enumerate(deviations.tolist()):
        for channel in range(2):
            expected = gaussian_filter(
                images[k, channel].double().numpy(), deviation, mode="mirror", radius=4
            )
            np.testing.assert_allclose(found[k, channel].numpy(), expected, atol=1e-5)


def test_solarizing_inverts_the_bright_half_of_second_views_alone() -> None:
    views = Views.of({**PLAIN, "solarize": 1.0})
    first, second = views.pair(pictures(), step_generator(1))
    torch.testing.assert_close(first, pictures(), rtol=0, atol=1e-5)
    assert float(second.max()) <= 0.5 + 1e-6


# --- training


RECIPE = dataclasses.replace(
    load_recipe("digits-rrcm-pretrain"),
    name="tiny-rrcm",
    steps=6,
    batch=8,
    warmup=2,
    clip_from=2,
    validate_every=3,
    network={**SHAPE, "hidden": 8, "projection": 4},
)


def trainer(folder: Path) -> Trainer:
    network = build_network(RECIPE.architecture, RECIPE.network, step_generator(0))
    data = DATASETS.get("digits").read("train")
    return Trainer(RECIPE, make_task(RECIPE, None), network, data, folder)


def test_a_resumed_pre_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run(6)
    for stop in (2, 6):
        part = trainer(tmp_path / "parts")
        assert part.resume() == (stop > 2)
        part.run(stop)
    for name in ("network", "average", "task"):
        mine, theirs = whole.state()[name], part.state()[name]
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert [row[3] for row in whole.rows] == [row[3] for row in part.rows]
    again = trainer(tmp_path / "parts")
    again.resume()
    assert again.task.facts()["nodes"] == 81  # that of the last step, although none is taken


def test_the_target_is_an_average_of_parameters_alone() -> None:
    run = trainer(Path("unused"))
    task: Any = run.task
    before = copy.deepcopy(task.target.state_dict())
    run._one_step()
    decay = sigmoid_decay(0, 6, 0.9, 0.985)
    for name, value in run.network.named_parameters():
        expected = decay * before[name] + (1 - decay) * value.detach()
        torch.testing.assert_close(task.target.get_parameter(name), expected)
    assert task.target.training
    assert not any(each.requires_grad for each in task.target.parameters())


def test_gradients_are_clipped_from_the_given_step_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clipped = trainer(tmp_path), []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_: clipped.append(run.step))
    for _ in range(4):
        run._one_step()
    assert clipped == [2, 3]


def test_reduced_precision_changes_little_and_leaves_float32() -> None:
    from advpure.training.precision import InBfloat16

    network = build_network(RECIPE.architecture, RECIPE.network, step_generator(0))
    task = make_task(RECIPE, None)
    task.start(network)
    task.begin_step(3, 6)
    batch = Batch(torch.rand(6, 1, 8, 8, generator=step_generator(1)), torch.zeros(6).long())
    exact = task.losses(network, batch, step_generator(2))
    rough = task.losses(InBfloat16(network, True), batch, step_generator(2))
    assert rough.dtype == torch.float32
    assert float((rough - exact).detach().abs().mean()) < 0.1 * float(exact.detach().mean())


# --- from the representation to a classifier


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """Return an untrained encoder as a file."""
    config = {**SHAPE, "hidden": 8, "projection": 4}
    network = build_network("conv-encoder", config, step_generator(0))
    facts = {"sigma_data": 0.75, "sigma_min": 0.002, "sigma_max": 80.0, "nodes": 41}
    path = tmp_path / "encoder.safetensors"
    save_network(
        path, network, architecture="conv-encoder", config=config,
        metadata={"name": "encoder", "task": "representation", "dataset": "digits", **facts},
    )  # fmt: skip
    return path


def tuned(encoder: Path, steps: int = 3, **loss: Any) -> Any:
    recipe = dataclasses.replace(
        load_recipe("digits-rrcm-probe"),
        name="tiny-tuned",
        teacher=str(encoder),
        steps=steps,
        batch=8,
        ema_ramp=1e-9,
        network={"hidden": 0, "classes": 10},
        loss=loss,
    )
    result = train(recipe, out=encoder.parent / "tuned", resume=False, progress=False)
    return load_network(result.weights)


def test_a_probe_leaves_the_encoder_and_a_frozen_head_stays(encoder: Path) -> None:
    before = load_network(encoder).network.state_dict()
    probe, metadata = tuned(encoder, train_encoder=False, entropy=1.0)
    state = probe.state_dict()
    assert not [name for name in state if name.startswith("projection_head")]
    assert all(torch.equal(state[n], before[n]) for n in state if not n.startswith("linear_head"))
    assert float(state["linear_head.weight"].abs().max()) > 1e-3
    assert (metadata["task"], metadata["nodes"]) == ("levelled-classifier", 41)
    assert metadata["covers"] == [0.001, 40.0]
    loss = {"sigmas": [0.25], "noises": 2, "consistency": 10.0, "entropy": 0.5}
    path = encoder.parent / "tuned" / "tiny-tuned.safetensors"
    kept = path.rename(encoder.parent / "probe.safetensors")
    last, facts = tuned(kept, **loss, train_head=False)
    after = last.state_dict()
    assert torch.equal(after["linear_head.weight"], state["linear_head.weight"])
    assert not torch.equal(after["enter.weight"], state["enter.weight"])
    assert (facts["noise_sigmas"], facts["covers"]) == ([0.25], [0.25, 0.25])


def test_rates_fall_from_the_answer_to_the_image(encoder: Path) -> None:
    task = RepresentationTuningTask("digits", {"layer_decay": 0.5}, load_network(encoder))
    network = build_network("conv-encoder", {**SHAPE, "hidden": 8, "classes": 10})
    rates = {name: task.rate_of(network, name) for name, _ in network.named_parameters()}
    assert rates["linear_head.weight"] == rates["norm.weight"] == 1.0
    assert rates["levels.1.blocks.0.conv1.weight"] == 0.5
    assert rates["levels.0.modulate.0.bias"] == 0.25
    assert rates["enter.weight"] == rates["embed.bias"] == 0.125
    assert rates["projection_head.0.weight"] == 0.0


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"nodes": 81}, "nodes 81 are not the 41 that the teacher was trained with; leave nodes"),
        ({"consistency": 1.0}, "consistency 1 of clean images is 0; use noises = 2"),
        ({"sigmas": [0.25], "consistency": 1.0}, "consistency 1 of one noise is 0"),
        ({"train_encoder": False, "train_head": False}, "trains no parameter; train encoder or"),
        ({"sigmas": [0.0]}, "are not all positive"),
    ],
)
def test_tuning_that_cannot_be_is_refused(
    encoder: Path, loss: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        tuned(encoder, **loss)
    assert "\n" not in str(caught.value)


def test_a_classifier_is_no_encoder(tmp_path: Path) -> None:
    recipe = dataclasses.replace(load_recipe("digits-rrcm-probe"), teacher="digits-edm")
    with pytest.raises(BadInput, match="teacher is no encoder of noisy images; give an rrcm"):
        train(recipe, out=tmp_path, progress=False)


def test_patches_that_do_not_fit_are_refused_in_one_line() -> None:
    shape = {"image_channels": 3, "width": 8, "depth": 1, "heads": 2}
    with pytest.raises(BadInput, match="image_size 32 is not divided by patch 5; use for example"):
        build_network("vit", {**shape, "image_size": 32, "patch": 5})
    with pytest.raises(BadInput, match="width 8 is not divided by 3 heads"):
        build_network("vit", {**shape, "image_size": 32, "patch": 4, "heads": 3})
    network = build_network("conv-encoder", {"image_channels": 1, "channels": [4], "patch": 3})
    with pytest.raises(BadInput, match="are not divided by patch 3"):
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1))
