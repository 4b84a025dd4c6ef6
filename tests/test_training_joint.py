"""The joint training: a linear model on Gaussian data, where attacks and losses are known."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.data import RawSplit
from advpure.models import model_path
from advpure.networks import build_network
from advpure.networks.joint import binary_losses, realness
from advpure.networks.weights import load_network, save_network
from advpure.training.generated import OneStepGenerator
from advpure.training.joint import JointTask, joint_losses
from advpure.training.randomness import normal, step_generator
from advpure.training.recipe import list_recipes, load_recipe
from advpure.training.tasks import Batch, make_task

SPREAD = 0.02
SETTINGS: dict[str, Any] = {
    "generator": "digits-cm",
    "real_eps": 0.1,
    "real_step_size": 0.04,
    "fake_eps": 0.5,
    "fake_step_size": 0.02,
    "fake_steps": 6,
    "early_stop": False,
}


class Linear(nn.Module):
    """Logits A (x - 1/2) + b of two classes."""

    def __init__(self) -> None:
        """Draw A."""
        super().__init__()
        self.slopes = nn.Parameter(0.3 * normal((2, 64), step_generator(11)))
        self.offsets = nn.Parameter(torch.tensor([0.5, -0.2]))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        logits: Tensor = (images - 0.5).flatten(1) @ self.slopes.T + self.offsets
        return logits


def linear() -> Linear:
    return Linear().eval().requires_grad_(False)


def drawn(rows: int, seed: int, shift: float) -> Batch:
    """Gaussian images of two classes around a mean that depends on the class."""
    labels = torch.arange(rows) % 2
    mean = 0.5 + shift * (1.0 - 2.0 * labels)[:, None, None, None]
    return Batch(mean + SPREAD * normal((rows, 1, 8, 8), step_generator(seed)), labels)


class Drawn:
    """A generator of Gaussian images."""

    sum = "0"

    def __init__(self, seed: int) -> None:
        """Keep the seed."""
        self.seed = seed

    def __call__(self, count: int, generator: torch.Generator, device: torch.device) -> Batch:
        """Return so many, always the same."""
        return drawn(count, self.seed, -0.01)


def joint_task(**given: Any) -> JointTask:
    teacher = load_network(model_path("digits-classifier"))
    task = JointTask("digits", {**SETTINGS, **given}, teacher)
    task.generator = Drawn(2)  # type: ignore[assignment]
    return task


def slopes_of(network: Linear, labels: Tensor) -> Tensor:
    return network.slopes.norm(dim=1)[labels]


def test_the_attacks_move_the_logit_of_the_class_as_far_as_they_may() -> None:
    network, real, fake = linear(), drawn(40, 1, 0.02), drawn(40, 2, -0.01)
    lowered, raised = joint_task().attack(network, real, fake)
    for before, after, moved in ((real, lowered, -0.1), (fake, raised, 6 * 0.02)):
        change = realness(network(after), before.labels) - realness(
            network(before.images), before.labels
        )
        assert torch.allclose(change, moved * slopes_of(network, before.labels), atol=1e-4)
    bounded = joint_task(fake_eps=0.05).attack(network, real, fake)[1]
    assert torch.allclose((bounded - fake.images).flatten(1).norm(dim=1), torch.tensor(0.05))


def test_an_attacked_image_stops_where_it_looks_more_real_than_attacked_real_ones() -> None:
    network, real, fake = linear(), drawn(40, 1, 0.02), drawn(40, 2, -0.01)
    task = joint_task(early_stop=True, fake_steps=40, fake_eps=5.0)
    lowered, raised = task.attack(network, real, fake)
    least = realness(network(lowered), real.labels).sigmoid().mean()
    start = realness(network(fake.images), fake.labels)
    step = 0.02 * slopes_of(network, fake.labels)
    # The first k with sigmoid(start + k step) above the mean: from 0, and at most all 40.
    needed = ((least.logit() - start) / step).ceil().clamp(0, 40)
    assert 0 in needed
    assert len(set(needed.tolist())) > 3
    reached = realness(network(raised), fake.labels)
    assert torch.allclose(reached, start + needed * step, atol=1e-3)


def test_the_loss_of_gaussian_data_is_the_integral() -> None:
    network, rows = linear(), 20_000
    task = joint_task(real_steps=3)
    task.generator = Drawn(4)  # type: ignore[assignment]
    losses = task.losses(network, drawn(rows, 3, 0.02), step_generator(0))
    assert losses.shape == (rows,)
    z, w = hermegauss(60)
    w = w / w.sum()
    a, b = network.slopes.double().numpy(), network.offsets.double().numpy()
    expected = 0.0
    for shift, moved, sign in ((0.02, -0.1, -1.0), (-0.01, 0.12, 1.0)):
        for c in (0, 1):
            unit = a[c] / np.linalg.norm(a[c])
            mean = shift * (1 - 2 * c) + moved * unit
            level = a[c] @ mean + b[c] + SPREAD * np.linalg.norm(a[c]) * z
            gap = a[1 - c] - a[c]
            other = gap @ mean + b[1 - c] - b[c] + SPREAD * np.linalg.norm(gap) * z
            told, classified = np.logaddexp(0, sign * level), np.logaddexp(0, other)
            expected += 0.5 * float(w @ (told + classified))
    error = float(losses.double().std()) / math.sqrt(rows)
    assert abs(float(losses.double().mean()) - expected) < 4.9 * error  # alpha 1e-6
    assert error < 2e-3 * expected


def test_losses_are_the_sum_of_both_pairs() -> None:
    logits = 2.0 * normal((6, 4), step_generator(8))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    p = logits.double().softmax(1).numpy()
    s = 1 / (1 + np.exp(-logits.double().numpy()))
    each = [-math.log(p[k, c]) for k, c in enumerate(labels.tolist())]
    told = [-math.log(s[k, c] if k < 3 else 1 - s[k, c]) for k, c in enumerate(labels.tolist())]
    pairs = [each[k] + told[k] + each[k + 3] + told[k + 3] for k in range(3)]
    np.testing.assert_allclose(joint_losses(logits, labels, 3).numpy(), pairs, rtol=1e-5)


def test_the_printed_attack_on_generated_images_makes_them_easy() -> None:
    network, real, fake = linear(), drawn(40, 1, 0.02), drawn(40, 2, -0.01)

    def lost(images: Tensor) -> Tensor:
        return binary_losses(realness(network(images), fake.labels), "generated")

    sound = joint_task().attack(network, real, fake)[1]
    printed = joint_task(fake_attack="lower").attack(network, real, fake)[1]
    assert bool((lost(sound) > lost(fake.images)).all())
    assert bool((lost(printed) < lost(fake.images)).all())


def test_the_printed_steps_of_both_attacks_do_what_they_say() -> None:
    network, real, fake = linear(), drawn(40, 1, 0.02), drawn(40, 2, -0.01)
    sound = joint_task().attack(network, real, fake)
    # Raw steps move a row by what its slope is: here far less than steps of one size.
    raw = joint_task(direction="raw").attack(network, real, fake)
    for before, after, moved in ((real, raw[0], 4 * 0.04), (fake, raw[1], 6 * 0.02)):
        lengths = (after - before.images).flatten(1).norm(dim=1)
        bound = torch.tensor(0.1 if before is real else 0.5)
        slope = moved * slopes_of(network, before.labels)
        assert torch.allclose(lengths, torch.minimum(slope, bound), atol=1e-5)
    # A ball of the other norm holds a step of every pixel at once, sqrt(64) times as long.
    wide = joint_task(norm="linf").attack(network, real, fake)
    assert torch.allclose((wide[0] - real.images).abs(), torch.tensor(0.1), atol=1e-5)
    assert torch.allclose((wide[1] - fake.images).abs(), torch.tensor(0.12), atol=1e-5)
    # The loop from 0 to T asks for one gradient more, and throws it away.
    asked: list[int] = []
    network.register_forward_pre_hook(lambda *given: asked.append(1))
    joint_task().attack(network, real, fake)
    usual = len(asked)
    extra = joint_task(extra=True).attack(network, real, fake)
    assert len(asked) == 2 * usual + 2
    assert all(torch.equal(a, b) for a, b in zip(extra, sound, strict=True))
    facts = joint_task(norm="linf").facts()
    assert facts["norm"] == "linf"
    assert "direction" not in facts


def test_the_reference_level_is_in_the_form_of_what_is_compared_with_it() -> None:
    network, level = linear(), {}
    for form in ("generated", "real"):
        task = joint_task(l0_form=form)
        task.held_out = drawn(50, 1, 0.02)
        task.conclude(network, 10)
        level[form] = task.facts()["l0"]
    f = realness(network(task.held_out.images), task.held_out.labels).double()
    assert level["generated"] == pytest.approx(float(torch.log1p(f.exp()).mean()), rel=1e-5)
    assert level["real"] == pytest.approx(float(torch.log1p((-f).exp()).mean()), rel=1e-5)
    # A generated image as real as the mean real one is compared by its own form: at the sound level
    # it is where it should be, at the printed one it is not.
    own = float(torch.log1p(f.mean().exp()))
    assert abs(own - level["generated"]) < 0.02
    assert abs(own - level["real"]) > 0.05


def test_without_attacks_images_stay_as_they_are() -> None:
    real, fake = drawn(4, 1, 0.02), drawn(4, 2, -0.01)
    images = joint_task(attacked=False).attack(linear(), real, fake)
    assert torch.equal(images[0], real.images)
    assert torch.equal(images[1], fake.images)


def test_attacks_on_generated_images_grow_longer() -> None:
    task = joint_task(fake_steps=2, fake_steps_every=100, fake_steps_added=3, fake_steps_most=9)
    lengths = []
    for step in (0, 99, 100, 250, 10_000):
        task.begin_step(step, 20_000)
        lengths.append(task.fake_attack.steps)
    assert lengths == [2, 2, 5, 8, 9]
    task.held_out = drawn(4, 1, 0.0)
    task.conclude(linear(), 201)
    assert task.facts()["fake_steps_at_the_end"] == 8


class Watched(Linear):
    """Has a batch normalisation; notes mode and number of images of every call."""

    def __init__(self) -> None:
        """Create the layers."""
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.calls: list[tuple[bool, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        self.calls.append((self.training, len(images)))
        return super().forward(0.5 + 0.1 * self.norm(images))


def test_statistics_move_once_a_step_over_real_and_generated_images_together() -> None:
    network = Watched().train()
    task = joint_task(early_stop=True, real_steps=2, fake_steps=2, fake_eps=9.0)
    task.losses(network, drawn(6, 1, 0.02), step_generator(1)).mean().backward()  # type: ignore[no-untyped-call]
    learning = [rows for training, rows in network.calls if training]
    assert learning == [12]
    assert network.calls[-1] == (True, 12)
    assert [rows for _, rows in network.calls[:3]] == [6, 6, 6]  # two steps, then the threshold
    assert int(network.norm.num_batches_tracked) == 1


def test_the_last_layer_is_new_and_nothing_else() -> None:
    task, before = joint_task(), load_network(model_path("digits-classifier")).network
    drawings = []
    for seed in (3, 3, 4):
        network = load_network(model_path("digits-classifier")).network
        task.initialise(network, seed)
        drawings.append(network.state_dict())
    for name, value in before.state_dict().items():
        same = torch.equal(value, drawings[0][name])
        assert same != (name == "leave.weight" or name == "leave.bias"), name
        assert torch.equal(drawings[0][name], drawings[1][name])
    assert not torch.equal(drawings[0]["leave.weight"], drawings[2]["leave.weight"])


def test_real_and_generated_images_are_told_apart_as_often_as_counted() -> None:
    task, network = joint_task(), linear()
    real = drawn(30, 1, 0.02)
    scores = task.score(network, real, step_generator(0))
    ours = realness(network(real.images), real.labels).tolist()
    fake = drawn(30, 2, -0.01)
    theirs = realness(network(fake.images), fake.labels).tolist()
    pairs = [a > b for a in ours for b in theirs]
    assert float(scores.mean()) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_what_measures_the_level_is_never_trained_on() -> None:
    pixels = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    task = joint_task(held_back=4)
    kept = task.divide(RawSplit(pixels, torch.arange(10), 16))
    assert kept.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert task.held_out.labels.tolist() == [6, 7, 8, 9]


def test_generated_images_follow_the_draws_and_have_classes(tmp_path: Path) -> None:
    labeller = load_network(model_path("digits-classifier")).network
    generator = OneStepGenerator("digits-cm", "digits", labeller)
    one, two, three = (generator(5, step_generator(s), torch.device("cpu")) for s in (1, 1, 2))
    assert one.images.shape == (5, 1, 8, 8)
    assert 0.0 <= float(one.images.min()) <= float(one.images.max()) <= 1.0
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, three.images)
    assert torch.equal(one.labels, labeller(one.images).argmax(1))
    # A model with classes is asked for uniform ones, and its images depend on them.
    shape = {"image_size": 8, "image_channels": 1, "channels": [8], "classes": 10}
    network = build_network("unet", shape, step_generator(6))
    with torch.no_grad():
        network.leave.weight.normal_(generator=step_generator(7))  # type: ignore[union-attr, operator]
    facts = {
        "task": "consistency", "dataset": "digits", "nodes": 18,
        "sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0,
    }  # fmt: skip
    path = tmp_path / "conditional.safetensors"
    save_network(path, network, architecture="unet", config=shape, metadata=facts)
    conditional = OneStepGenerator(str(path), "digits", labeller)
    batch = conditional(2000, step_generator(1), torch.device("cpu"))
    assert set(batch.labels.tolist()) == set(range(10))
    # Of 2,000 uniform classes each comes 200 times, by 66 (4.9 deviations) at most.
    assert ((batch.labels.bincount() - 200).abs() < 66).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generator": ""}, "generator is not given"),
        ({"generator": "digits-edm"}, "generator digits-edm is no consistency model"),
        ({"generator": "cifar10-cm"}, "makes images"),
        ({"fake_attack": "up"}, "fake_attack 'up' is not known"),
        ({"fake_steps": 0}, "fake_steps 0"),
        ({"norm": "l3"}, "norm 'l3' is not known"),
        ({"direction": "up"}, "direction 'up' is not known"),
        ({"l0": 1.0}, "loss setting 'l0' is unknown"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    teacher = load_network(model_path("digits-classifier"))
    with pytest.raises(BadInput, match=message):
        JointTask("digits", {**SETTINGS, **settings}, teacher)
    with pytest.raises(BadInput, match="teacher is no classifier"):
        JointTask("digits", SETTINGS, load_network(model_path("digits-edm")))


def test_no_recipe_moves_real_images_alone() -> None:
    """A shift that only real images have would tell them from generated ones."""
    joint = [load_recipe(name) for name in list_recipes() if "-joint" in name]
    assert len(joint) >= 4
    assert all(recipe.task == "joint" and recipe.shift == 0 for recipe in joint)
    moved = dataclasses.replace(load_recipe("digits-joint"), shift=1)
    with pytest.raises(BadInput, match="shift 1 of task joint moves real images alone"):
        make_task(moved, load_network(model_path("digits-classifier")))


def test_the_plain_recipes_differ_from_the_robust_ones_in_attack_and_start() -> None:
    for data in ("digits", "cifar10"):
        assert {f"{data}-joint", f"{data}-joint-plain"} <= set(list_recipes())
        robust, plain = load_recipe(f"{data}-joint"), load_recipe(f"{data}-joint-plain")
        assert plain.loss == {**robust.loss, "attacked": False}
        assert (robust.teacher, plain.teacher) == (f"{data}-robust-l2", f"{data}-classifier")
        same = dataclasses.replace(
            plain, name=robust.name, about=robust.about, teacher=robust.teacher, loss=robust.loss
        )
        assert same == robust
