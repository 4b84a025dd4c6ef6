"""The joint classifier and discriminator: its losses, what it takes, how it is loaded."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from advpure import load_classifier, load_images
from advpure.base.errors import BadInput
from advpure.loading import load_joint
from advpure.models import model_path
from advpure.networks.joint import JointClassifier, binary_losses, debias, realness
from advpure.networks.weights import load_network, save_network


def test_the_losses_are_those_of_a_coin_with_the_logistic_probability() -> None:
    levels = torch.tensor([-3.0, 0.0, 2.0])
    real = [-math.log(1 / (1 + math.exp(-x))) for x in levels.tolist()]
    generated = [-math.log(1 - 1 / (1 + math.exp(-x))) for x in levels.tolist()]
    assert torch.allclose(binary_losses(levels, "real"), torch.tensor(real))
    assert torch.allclose(binary_losses(levels, "generated"), torch.tensor(generated))
    assert binary_losses(torch.tensor([500.0]), "generated").item() == 500.0
    with pytest.raises(BadInput, match="form 'fake' is not known"):
        binary_losses(levels, "fake")  # type: ignore[arg-type]


def test_realness_is_the_logit_of_the_class() -> None:
    logits = torch.tensor([[1.0, 5.0], [4.0, 3.0]])
    assert realness(logits).tolist() == [5.0, 4.0]
    assert realness(logits, torch.tensor([0, 1])).tolist() == [1.0, 3.0]
    with pytest.raises(BadInput, match="class 2 is outside the 2 classes"):
        realness(logits, torch.tensor([0, 2]))
    scores = JointClassifier(nn.Flatten()).scores(logits.reshape(2, 1, 1, 2), torch.tensor([1, 1]))
    assert scores.logits.tolist() == logits.tolist()
    assert scores.realness.tolist() == [5.0, 3.0]


def test_a_preference_for_a_class_is_taken_away() -> None:
    logits = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    skewed = logits + torch.tensor([5.0, 0.0, -5.0])
    chosen = (skewed + debias(skewed)).argmax(1)
    # Each class has a third; a binomial of 2,000 leaves 1/3 by 0.05 with probability 2e-6.
    assert ((chosen.bincount(minlength=3) / 2000 - 1 / 3).abs() < 0.05).all()


def test_a_file_of_a_joint_model_brings_its_reference_level(tmp_path: Path) -> None:
    network, metadata = load_network(model_path("digits-classifier"))
    path = tmp_path / "joint.safetensors"
    facts = {"task": "joint", "dataset": "digits", "l0": 1.5}
    config, architecture = metadata["config"], metadata["architecture"]
    save_network(path, network, architecture=architecture, config=config, metadata=facts)
    joint, identity = load_joint("digits", path)
    assert joint.l0 == 1.5
    assert identity["name"] == "joint"
    judge = load_classifier("digits", path)
    images = load_images("digits", n=4).images
    assert isinstance(judge, JointClassifier)
    assert torch.equal(judge(images), joint(images))
    assert torch.equal(joint(images), load_joint("digits", "digits-classifier")[0](images))
