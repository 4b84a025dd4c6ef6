"""Classifiers of probabilities or classes are attacked and decided as those of logits."""

import pytest
import torch
from torch import Tensor, nn

from advpure.analysis.subject import DefenseSubject
from advpure.attacks import ZeroGradientWarning, pgd, uniform_noise
from advpure.base.errors import BadInput
from advpure.core.outputs import AsLogits, Outputs
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import describe, load_classifier, load_defense

IMAGES, LABELS, _ = load_images("digits", n=8)


class Softmax(nn.Module):
    """The digits classifier with the softmax in it."""

    def __init__(self) -> None:
        """Load it."""
        super().__init__()
        self.network = load_classifier("digits")

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities."""
        result: Tensor = self.network(x).softmax(1)
        return result


class Labels(Softmax):
    """The digits classifier that answers with classes."""

    def forward(self, x: Tensor) -> Tensor:
        """Return classes."""
        return super().forward(x).argmax(1)


def test_probabilities_become_logits_up_to_a_constant_a_row() -> None:
    logits = load_classifier("digits")(IMAGES)
    found = AsLogits(Softmax(), "probabilities")(IMAGES)
    assert torch.allclose(found, logits.log_softmax(1), atol=1e-4)


def test_an_attack_sees_the_same_losses_through_probabilities() -> None:
    xi = RandomnessConfig(0)
    defenses = [
        load_defense("none", "digits", xi=xi, classifier=Softmax(), outputs="probabilities"),
        load_defense("none", "digits", xi=xi),
    ]
    one, two = (
        pgd(defense, IMAGES, LABELS, eps=0.1, steps=5, stop="never") for defense in defenses
    )
    assert torch.equal(one.success, two.success)
    assert one.loss.tolist() == pytest.approx(two.loss.tolist(), rel=1e-3, abs=1e-5)
    described = describe(defenses[0])["classifier"]
    assert described["outputs"] == "probabilities"
    assert "outputs" not in describe(defenses[1])["classifier"]


def test_probabilities_stay_refused_where_nobody_says_so() -> None:
    defense = load_defense("none", "digits", classifier=Softmax())
    with pytest.raises(BadInput, match=r"look like probabilities .*--outputs probabilities"):
        pgd(defense, IMAGES, LABELS, eps=0.1)
    network = load_classifier("digits")
    wrong = load_defense("none", "digits", classifier=network, outputs="probabilities")
    with pytest.raises(BadInput, match=r"are no probabilities .*outputs='logits'"):
        pgd(wrong, IMAGES, LABELS, eps=0.1)


def test_classes_decide_as_they_are_and_have_no_gradient() -> None:
    network = load_classifier("digits")
    defense = load_defense("none", "digits", classifier=Labels(), outputs="labels")
    assert torch.equal(defense(IMAGES).argmax(1), load_classifier("digits")(IMAGES).argmax(1))
    noisy = [
        uniform_noise(model, IMAGES, LABELS, eps=0.3).success
        for model in (defense, load_classifier("digits"))
    ]
    assert torch.equal(*noisy)
    with pytest.warns(ZeroGradientWarning, match="the attack cannot see the model"):
        result = pgd(defense, IMAGES, LABELS, eps=0.1, random_start=False, steps=1)
    assert bool(result.zero_gradient[~result.success].all())
    with pytest.raises(BadInput, match=r"is not \[8, classes\]; .*outputs='labels'"):
        pgd(Labels(), IMAGES, LABELS, eps=0.1)
    with pytest.raises(BadInput, match=r"are no classes \(\[B\], 0 \.\. 9\)"):
        load_defense("none", "digits", classifier=network, outputs="labels")(IMAGES)


def test_a_run_records_what_its_classifier_answers_with() -> None:
    defense = load_defense("none", "digits", classifier=Labels(), outputs="labels")
    assert describe(defense)["classifier"]["outputs"] == "labels"
    with pytest.raises(BadInput, match=r"outputs 'odds' is not known; .*known: logits, prob"):
        load_classifier("digits", outputs="odds")  # type: ignore[arg-type]


@pytest.mark.parametrize("outputs", ["probabilities", "labels"])
def test_a_known_network_answers_with_logits(outputs: Outputs) -> None:
    subject = DefenseSubject(defense="none", dataset="digits", n=1, outputs=outputs)
    with pytest.raises(BadInput, match=rf"outputs '{outputs}' contradicts classifier .* logits"):
        subject.load_defense(RandomnessConfig(0))
    with pytest.raises(BadInput, match="whose network answers with logits; leave it out"):
        load_classifier("digits", outputs=outputs)
