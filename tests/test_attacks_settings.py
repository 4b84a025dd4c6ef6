"""Bad input is refused in one line: the value, the rule, the fix; and attacks are found by name."""

from typing import Any

import pytest
import torch
from torch import Tensor

from advpure.attacks import (
    ATTACKS,
    APGDSettings,
    PGDEOTSettings,
    PGDSettings,
    apgd,
    bpda,
    pgd,
    pgd_eot,
    settings_type,
    uniform_noise,
)
from advpure.attacks.registry import find
from advpure.base.errors import BadInput

IMAGES, LABELS = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])


def _model(images: Tensor) -> Tensor:
    score = images.sum(dim=(1, 2, 3))
    return torch.stack([score, 4 - score], dim=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 8}, "epsilon 8 is ambiguous"),
        ({"eps": "8"}, "write 8/255 "),
        ({"eps": 0}, "epsilon 0 is not positive"),
        ({"eps": -0.1}, "epsilon -0.1 is not positive"),
        ({"eps": float("nan")}, "epsilon nan is not finite"),
        ({"eps": "abc"}, "epsilon 'abc' is not a number"),
        ({}, "epsilon is missing"),
        ({"eps": 0.1, "steps": 0}, "steps 0 is not a whole number from 1 to 1000000"),
        ({"eps": 0.1, "steps": 2.5}, "steps 2.5 is not a whole number"),
        ({"eps": 0.1, "steps": True}, "steps True is not a whole number"),
        ({"eps": 0.1, "eot": 0}, "eot 0 is not"),
        ({"eps": 0.1, "seed": -1}, "seed -1 is not"),
        ({"eps": 0.1, "seed": 2**64}, "is not a whole number from 0 to 2**64 - 1"),
        ({"eps": 0.1, "step_size": 0.0}, "step size 0 is not above 0"),
        ({"eps": 0.1, "step_size": float("inf")}, "step size inf is not finite"),
        ({"eps": 0.1, "norm": "l_inf"}, "norm 'l_inf' is not known; did you mean linf?"),
        ({"eps": 0.1, "loss": "margins"}, "loss 'margins' is not known; did you mean margin?"),
        ({"eps": 0.1, "iterate": "first"}, "iterate 'first' is not known"),
        ({"eps": 0.1, "stop": "sucess"}, "did you mean success?"),
        ({"eps": 0.1, "stop": None}, "stop None is not known"),
        ({"eps": 0.1, "randomness": "fix"}, "did you mean fixed?"),
        ({"eps": 0.1, "eot_mode": "mean"}, "eot mode 'mean' is not known"),
        ({"eps": 0.1, "gradient": "bdpa"}, "gradient 'bdpa' is not known; did you mean bpda?"),
        ({"eps": 0.1, "targeted": "no"}, "targeted 'no' is neither true nor false"),
        ({"eps": 0.1, "stepsize": 1}, "setting 'stepsize' is not known; did you mean step_size?"),
        ({"eps": 0.1, "gradient": "bpda"}, "gradient 'bpda' cannot be set on a plain callable"),
    ],
)
def test_settings_are_checked_where_they_enter(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        pgd(_model, IMAGES, LABELS, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES * 255, LABELS, "leave [0, 1]; divide by 255"),
        (IMAGES * 2 - 1.5, LABELS, "leave [0, 1]"),
        (IMAGES * torch.nan, LABELS, "leave [0, 1]; remove the NaN"),
        (IMAGES[0], LABELS, "are not [B, C, H, W]"),
        ((IMAGES * 255).to(torch.uint8), LABELS, "are not floating point"),
        (IMAGES[:0], LABELS[:0], "are empty"),
        (IMAGES, LABELS[:1], "do not match 2 images"),
        (IMAGES, LABELS.float(), "are not class indices"),
        (IMAGES, LABELS - 1, "label -1 is negative"),
        (IMAGES, LABELS + 1, "label 2 is outside the 2 classes of the model; use 0 .. 1"),
        (IMAGES, [0, 1], "are not a tensor"),
    ],
)
@pytest.mark.parametrize("attack", [pgd, apgd, uniform_noise])
def test_images_and_labels_are_checked(attack: Any, images: Any, labels: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        attack(_model, images, labels, eps=0.1)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda x: _model(x).softmax(dim=1), "look like probabilities"),
        (lambda x: torch.eye(2), "look like probabilities"),
        (lambda x: _model(x) * torch.nan, "logits contain NaN or infinite values"),
        (lambda x: _model(x) / 0.0, "logits contain NaN or infinite values"),
        (lambda x: x, "is not [2, classes]"),
        (lambda x: _model(x)[:1], "is not [2, classes]"),
        (lambda x: (_model(x), 1), "model output of shape tuple"),
        (lambda x: _model((x - x).sqrt()), "gradients contain NaN"),
    ],
)
def test_outputs_are_checked(outputs: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        pgd(outputs, IMAGES, torch.tensor([1, 1]), eps=0.1, stop="never")
    assert message in str(caught.value)


@pytest.mark.parametrize("attack", [pgd, pgd_eot])
def test_a_step_below_the_spacing_of_the_images_is_refused(attack: Any) -> None:
    with pytest.raises(
        BadInput, match=r"step size 1e-09 is below 1\.2e-07, the spacing of float32"
    ):
        attack(_model, IMAGES.float(), LABELS, eps=0.1, step_size=1e-9)
    attack(_model, IMAGES.double(), LABELS, eps=0.1, step_size=1e-9, steps=1)


def test_logits_that_merely_sum_to_one_are_fine() -> None:
    result = pgd(lambda x: _model(x) - 1.5, IMAGES + 0.2, LABELS, eps=0.1, stop="never")
    assert result.iterations.tolist() == [40, 40]


def test_a_model_in_training_mode_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with pytest.raises(BadInput, match=r"call model\.eval"):
        pgd(model, IMAGES, LABELS, eps=0.1)
    pgd(model.eval(), IMAGES, LABELS, eps=0.1, steps=1)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (IMAGES[:1], "pass one starting point per image"),
        (IMAGES * torch.inf, "is not a finite tensor"),
    ],
)
def test_a_start_must_fit(start: Tensor, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        pgd(_model, IMAGES, LABELS, eps=0.1, start=start)


def test_a_start_outside_the_ball_is_pulled_in() -> None:
    seen: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        seen.append(images.detach().clone())
        return _model(images)

    pgd(model, IMAGES, LABELS, eps=0.25, start=IMAGES + 9, steps=1, stop="never")
    # The first two calls ask whether the model repeats itself.
    assert torch.equal(seen[2], IMAGES + 0.25)


def test_settings_and_overrides_merge() -> None:
    settings = PGDSettings(eps=0.1, steps=3)
    result = pgd(_model, IMAGES, LABELS, settings, loss="margin", eps="2/255")
    assert isinstance(result.settings, PGDSettings)
    assert (result.settings.steps, result.settings.loss) == (3, "margin")
    assert result.settings.eps == 2 / 255
    with pytest.raises(BadInput, match="pass a PGDSettings"):
        pgd(_model, IMAGES, LABELS, APGDSettings(eps=0.1))  # type: ignore[arg-type]


def test_texts_are_read_as_numbers() -> None:
    settings = PGDSettings(eps="8/255", step_size="2/255")  # type: ignore[arg-type]
    assert (settings.eps, settings.step) == (8 / 255, 2 / 255)
    assert PGDSettings(eps=0.3).step == pytest.approx(0.01)


def test_attacks_are_found_by_name() -> None:
    assert find("pgd") is pgd
    assert find(" Uniform_Noise ") is uniform_noise
    with pytest.raises(BadInput, match="did you mean bpda"):
        find("bdpa")


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_registered_attack_keeps_the_contract(name: str) -> None:
    attack = find(name)
    kind = settings_type(attack)
    assert ATTACKS.about(name)
    if attack is bpda or name == "bpda-eot":
        with pytest.raises(BadInput, match="plain callable"):
            attack(_model, IMAGES, LABELS, kind(eps=0.1))
        return
    result = attack(_model, IMAGES, LABELS, kind(eps=0.1))
    assert result.images.shape == IMAGES.shape
    assert bool((result.linf <= 0.1 + 1e-7).all())
    for field in ("success", "loss", "iterations", "forwards", "backwards", "l2", "zero_gradient"):
        assert getattr(result, field).shape == (2,)
    assert isinstance(result.settings, kind)


def test_the_class_of_settings_is_read_from_the_annotation() -> None:
    def bare(settings: PGDSettings) -> None: ...
    def unsaid(model, settings=None): ...  # type: ignore[no-untyped-def]
    def foreign(settings: dict[str, int] | None = None) -> None: ...

    assert settings_type(bare) is PGDSettings
    for attack in (unsaid, foreign, lambda model: model):
        with pytest.raises(BadInput, match="does not say the class of its settings; annotate"):
            settings_type(attack)


def test_averaging_defaults() -> None:
    settings = PGDEOTSettings(eps=0.1)
    assert (settings.eot, settings.randomness, settings.stops) == (15, "fresh", False)
