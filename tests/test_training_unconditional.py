"""Class-conditional networks, and the unconditional consistency models that they become."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.core.denoisers import ConsistencyDenoiser, EDMDenoiser
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_defense
from advpure.networks import build_network
from advpure.networks.weights import LoadedNetwork, load_network
from advpure.training import Recipe, load_recipe, train
from advpure.training.consistency import ConsistencyTask, heun_step
from advpure.training.consistency_unconditional import UnconditionalTask
from advpure.training.edm import EDMTask
from advpure.training.labelled import TOKENS, Labelled, average_tokens, with_labels
from advpure.training.precision import InBfloat16
from advpure.training.randomness import step_generator
from advpure.training.run import _network
from advpure.training.tasks import Batch

SHAPE = {"image_size": 8, "image_channels": 1, "channels": [8], "embedding": 8}
RANGE = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}


def network_of(classes: int, seed: int = 0) -> nn.Module:
    """Build a network with every parameter away from zero."""
    network = build_network("unet", {**SHAPE, "classes": classes})
    generator = step_generator(seed, "fill")
    for parameter in network.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def states(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = step_generator(3, "states")
    x = torch.randn(count, 1, 8, 8, generator=generator)
    return x, torch.randn(count, generator=generator) / 4, torch.arange(count) % 3


def test_a_class_is_its_token_and_no_class_is_their_mean() -> None:
    network = network_of(3)
    x, noise, labels = states()
    rows = [network(x[k : k + 1], noise[k : k + 1], labels[k : k + 1]) for k in range(len(x))]
    torch.testing.assert_close(network(x, noise, labels), torch.cat(rows))
    assert not torch.allclose(network(x, noise, labels), network(x, noise, (labels + 1) % 3))
    # The unconditional network of the averaged state is the conditional one without labels.
    single = build_network("unet", {**SHAPE, "classes": 1}).eval()
    single.load_state_dict(average_tokens(network.state_dict()))
    torch.testing.assert_close(network(x, noise), single(x, noise))
    torch.testing.assert_close(network(x, noise, torch.full((len(x),), -1)), single(x, noise))
    torch.testing.assert_close(single(x, noise), single(x, noise, torch.zeros(len(x)).long()))
    # By hand: equal tokens leave nothing of the class.
    table = network.state_dict()[TOKENS]
    table.copy_(table.mean(0, keepdim=True).expand_as(table).clone())
    torch.testing.assert_close(network(x, noise, labels), single(x, noise))


def test_networks_without_tokens_are_what_they_were() -> None:
    plain = build_network("unet", SHAPE)
    assert TOKENS not in plain.state_dict()
    x, noise, labels = states()
    assert torch.equal(plain(x, noise, labels), plain(x, noise))
    for network in (plain, network_of(1), InBfloat16(network_of(1), False)):
        assert with_labels(network, labels) is network
    assert isinstance(with_labels(InBfloat16(network_of(3), True), labels), Labelled)
    with pytest.raises(BadInput, match="classes -1 is not a whole number from 0"):
        build_network("unet", {**SHAPE, "classes": -1})


def batch() -> Batch:
    pixels = torch.rand(6, 1, 8, 8, generator=step_generator(1))
    return Batch(pixels, torch.arange(6) % 3)


def test_denoisers_and_distillations_are_told_the_labels() -> None:
    network, data = network_of(3), batch()
    found = EDMTask("digits", {}).losses(network, data, step_generator(5))
    other = Batch(data.images, (data.labels + 1) % 3)
    assert not torch.allclose(
        found, EDMTask("digits", {}).losses(network, other, step_generator(5))
    )

    taught = LoadedNetwork(network_of(3, seed=8), {"task": "edm", **RANGE})
    task = ConsistencyTask("digits", {"distance": "l2", "nodes": 6}, taught)
    found = task.losses(network, data, step_generator(5))
    generator = step_generator(5)
    node = torch.randint(0, 5, (6,), generator=generator)
    clean = 2 * data.images - 1
    noise = torch.randn(clean.shape, generator=generator)
    t, s = task.grid[node], task.grid[node + 1]
    x = clean + t[:, None, None, None] * noise
    teacher = EDMDenoiser(Labelled(taught.network, data.labels), **RANGE)
    student = ConsistencyDenoiser(Labelled(network, data.labels), **RANGE)
    expected = (student(x, t) - student(heun_step(teacher, x, t, s), s)).square().flatten(1).mean(1)
    torch.testing.assert_close(found, expected)


def recipe(name: str, task: str, **more: Any) -> Recipe:
    return Recipe(
        **{
            "name": name, "about": "A case", "task": task, "dataset": "digits", "steps": 2,
            "batch": 8, "seed": 0, "architecture": "unet", **more,
        }
    )  # fmt: skip


@pytest.mark.slow
def test_from_a_conditional_model_to_a_purifier(tmp_path: Path) -> None:
    """The whole way: conditional denoiser, conditional model, unconditional model, defense."""
    edm = train(
        recipe("edm", "edm", network={**SHAPE, "classes": 10}), out=tmp_path / "e", progress=False
    )
    cm = train(
        recipe("cm", "consistency", teacher=str(edm.weights), loss={"nodes": 6}),
        out=tmp_path / "c", progress=False,
    )  # fmt: skip
    plan = recipe(
        "one", "consistency-unconditional", teacher=str(cm.weights), network={"classes": 1},
        loss={"nodes": 6, "edm": str(edm.weights)},
    )  # fmt: skip
    started, config = _network(plan, load_network(cm.weights))
    assert config["classes"] == 1
    conditional = load_network(cm.weights).network
    expected = conditional.state_dict()[TOKENS].mean(0, keepdim=True)
    assert torch.equal(started.state_dict()[TOKENS], expected)
    x, noise, _ = states()
    torch.testing.assert_close(started.eval()(x, noise), conditional(x, noise))
    result = train(plan, out=tmp_path / "u", progress=False)
    network, metadata = load_network(result.weights)
    assert metadata["task"] == "consistency"
    assert metadata["denoiser"] == str(edm.weights)
    assert network.state_dict()[TOKENS].shape[0] == 1
    assert not torch.equal(network.state_dict()[TOKENS], expected)
    defense = load_defense(
        "cm", "digits", weights=str(result.weights), nodes=6, xi=RandomnessConfig(0)
    )
    assert defense.bind([0, 1])(torch.rand(2, 1, 8, 8, generator=step_generator(2))).shape == (
        2,
        10,
    )


@pytest.mark.parametrize("rate", [0.0, 0.999])
def test_label_dropout_asks_for_the_mean_class(rate: float) -> None:
    data, network = batch(), network_of(10).train()
    plain, task = (EDMTask("digits", settings) for settings in ({}, {"label_dropout": rate}))
    generators = step_generator(5), step_generator(5)
    losses = task.losses(network, data, generators[0])
    # At 0 nothing more is drawn and no bit changes; at .999 these few images all lose their class.
    unseen = Batch(data.images, torch.full_like(data.labels, -1))
    seen = data if rate == 0 else unseen
    assert torch.equal(losses, plain.losses(network, seen, generators[1]))
    assert torch.equal(generators[0].get_state(), generators[1].get_state()) == (rate == 0)
    assert not torch.equal(
        plain.losses(network, data, step_generator(5)),
        plain.losses(
            network, Batch(data.images, torch.full_like(data.labels, -1)), step_generator(5)
        ),
    )
    # Validation keeps the labels.
    assert task.metric(network.eval()) == plain.metric(network.eval())
    assert torch.equal(
        task.losses(network, data, step_generator(6)),
        plain.losses(network, data, step_generator(6)),
    )


def test_label_dropout_hides_as_many_labels_as_it_says() -> None:
    task = EDMTask("digits", {"label_dropout": 0.3})
    hidden = task._hidden(torch.zeros(20_000, dtype=torch.int64), step_generator(1)) == -1
    # Binomial: 4.5 standard deviations are alpha 7e-6.
    assert abs(float(hidden.float().mean()) - 0.3) < 4.5 * (0.3 * 0.7 / 20_000) ** 0.5


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan"), True, "often", None, [0.1]])
def test_label_dropout_is_a_probability_below_one(rate: object) -> None:
    with pytest.raises(BadInput, match="label_dropout"):
        EDMTask("digits", {"label_dropout": rate})


def test_the_teacher_of_an_unconditional_model_has_no_classes() -> None:
    """Its target is that of the mean token: other labels change nothing."""
    task = UnconditionalTask(
        "digits", {"edm": "digits-edm", "distance": "l2", "nodes": 6}, _start("digits-cm")
    )
    task.teacher = InBfloat16(network_of(3), False)
    data, network = batch(), network_of(1)
    other = Batch(data.images, (data.labels + 1) % 3)
    one, two = (task.losses(network, each, step_generator(5)) for each in (data, other))
    assert torch.equal(one, two)


def _start(name: str) -> LoadedNetwork:
    from advpure.models import model_path

    return load_network(model_path(name))


def test_starts_and_denoisers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    plan = load_recipe("digits-cm-unconditional")
    for change, message in (
        ({"teacher": "digits-cm", "loss": {"edm": "digits-edm"}}, "teacher has no class tokens"),
        ({"teacher": "digits-edm", "loss": {"edm": "digits-edm"}}, "of the consistency task"),
        ({"teacher": "digits-cm", "loss": {"edm": "digits-cm"}}, "of the edm task"),
        ({"teacher": "digits-cm", "loss": {}}, "edm is not given"),
        ({"teacher": "digits-cm", "loss": {"edm": "cifar10-edm"}}, "has another noise range"),
        ({}, r"weights file runs.train.* is missing"),
    ):
        with pytest.raises(BadInput, match=message):
            train(dataclasses.replace(plan, **change), out=tmp_path, progress=False)


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_the_recipes_lead_from_one_to_the_next(data: str) -> None:
    edm, cm, one = (
        load_recipe(f"{data}-{name}")
        for name in ("edm-conditional", "cm-conditional", "cm-unconditional")
    )
    assert edm.network["classes"] == 10
    path = f"runs/train/{edm.name}/{edm.name}.safetensors"
    assert str(one.loss["edm"]) == path
    if data == "digits":
        assert cm.teacher == edm.name
    else:  # only parts are trained, so that the file repeats nothing of cifar10-cm
        assert (cm.teacher, cm.loss["edm"]) == ("cifar10-cm", edm.name)
    assert one.teacher == f"runs/train/{cm.name}/{cm.name}.safetensors"
    assert one.network["classes"] == 1
