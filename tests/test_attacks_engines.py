"""The same numbers as foolbox and advertorch, where those are installed."""

import importlib
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advpure.attacks import pgd
from advpure.attacks.oracle import Oracle
from advpure.attacks.settings import GradientSettings
from advpure.base.errors import MissingExtra
from advpure.base.units import Norm
from advpure.compat.advertorch import load_advertorch, zero_gradients
from advpure.core.gradients import replace_gradient


def _classifier() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 5))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    # Doubles, so that a sign step does not turn a last bit into another iterate.
    return module.double().eval()


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    images = torch.rand(9, 3, 8, 8, generator=generator, dtype=torch.float64)
    offset = torch.rand(9, 3, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    return images, torch.arange(9) % 5, offset


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_iterates_equal_foolbox(norm: Norm, targeted: bool, steps: int) -> None:
    foolbox, eagerpy = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")
    model, (images, labels, offset) = _classifier(), _batch()
    eps = 8 / 255 if norm == "linf" else 0.5
    reach = eps if norm == "linf" else eps / offset.flatten(1).norm(dim=1).max()
    start = (images + offset * reach).clamp(0, 1)
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    engine = kind(steps=steps, rel_stepsize=0.01 / 0.3, random_start=True)
    engine.get_random_start = lambda x0, epsilon: eagerpy.astensor(start)
    goal = foolbox.criteria.TargetedMisclassification if targeted else foolbox.Misclassification
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = engine.run(bounded, images, goal(labels), epsilon=eps)
    ours = pgd(
        model, images, labels, eps=eps, norm=norm, targeted=targeted, steps=steps, start=start,
        stop="never",
    )  # fmt: skip
    assert (ours.images - theirs).abs().max() < 1e-6
    assert (ours.images - start).abs().max() > 1e-4


@pytest.mark.slow
def test_bpda_gradients_equal_advertorch() -> None:
    if importlib.util.find_spec("advertorch") is None:
        pytest.skip("the interop extra is not installed")

    def quantise(images: Tensor) -> Tensor:
        return torch.round(images * 5) / 5

    classifier, (images, labels, _) = _classifier(), _batch()
    wrapped = nn.Sequential(load_advertorch("bpda").BPDAWrapper(quantise), classifier)
    points = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(wrapped(points), labels, reduction="sum")
    (theirs,) = torch.autograd.grad(loss, points)

    def defended(images: Tensor) -> Tensor:
        logits: Tensor = classifier(replace_gradient(images, quantise, lambda x: x))
        return logits

    oracle = Oracle(defended, GradientSettings(eps=0.1, steps=1))
    ours = oracle.slope(images, labels, torch.arange(9), step=0)
    assert theirs.abs().max() > 0
    assert torch.equal(ours.gradient, theirs)


def test_the_missing_name_zeroes_gradients() -> None:

    first, second = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    first.grad = torch.tensor([3.0, 4.0])
    zero_gradients([first, second])
    assert first.grad is not None
    assert first.grad.tolist() == [0.0, 0.0]
    assert second.grad is None


def test_a_missing_advertorch_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:

    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("advertorch"):
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtra, match=r"advpure\[interop\]"):
        load_advertorch()
