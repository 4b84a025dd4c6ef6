"""Networks in bfloat16 and float16: what is rounded, what is not, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_studies import quick
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.analysis.audit.study import Audit
from advpure.analysis.certification.settings import CertificationSettings
from advpure.analysis.certification.study import Certification
from advpure.analysis.check_grad.study import CheckGrad
from advpure.analysis.robustness.study import Robustness
from advpure.base.errors import BadInput
from advpure.core.defense import Defense
from advpure.core.denoisers import EDMDenoiser
from advpure.core.precision import InPrecision, computed_in
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import describe, load_defense, load_denoiser, load_purifier
from advpure.runs.header import canonical_json
from advpure.runs.records import RecordStore
from advpure.studies import STUDIES

LOWER = ("bfloat16", "float16")
XI = RandomnessConfig(0)
lower = pytest.mark.parametrize("precision", LOWER)
pytestmark = pytest.mark.filterwarnings("ignore:this processor has no instructions")


def defended(precision: str, name: Any = "cm", **options: Any) -> Defense:
    return load_defense(name, "digits", xi=XI, precision=precision, **{"tile": 8, **options})


def answers(defense: Defense, n: int, order: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """Return logits of digits and gradients of their cross entropy."""
    images, labels, ids = (part[order or slice(None)] for part in load_images("digits", n=n))
    x = images.clone().requires_grad_()
    logits = defense.bind(ids)(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)
    return logits.detach(), gradient


@lower
@pytest.mark.parametrize("name", ["cm", "none", "rrcm"])
def test_answers_and_gradients_are_near_float32_and_rows_do_not_depend_on_others(
    name: str, precision: str
) -> None:
    exact, slope = answers(defended("float32", name), 11)
    defense = defended(precision, name)
    logits, gradient = answers(defense, 11)
    assert logits.dtype == gradient.dtype == torch.float32
    # 8 and 11 bits of a number, of logits up to about 10 and a dozen layers
    assert 0 < (logits - exact).abs().max() < {"bfloat16": 0.5, "float16": 0.05}[precision]
    assert F.cosine_similarity(gradient.flatten(1), slope.flatten(1)).mean() > 0.95
    order = [7, 3, 10, 0]
    few = answers(defense, 11, order)
    assert torch.equal(few[0], logits[order])
    assert torch.equal(few[1], gradient[order])


@lower
def test_states_between_steps_are_float32_and_recomputed_gradients_are_those_of_the_chain(
    precision: str,
) -> None:
    full = defended(precision, "ddpm", t=2, gradient="full", tile=1)
    image = load_images("digits", n=1)
    states = [x for _, x in full.purifier.at(ids=[0], xi=XI).trajectory(image.images)]
    assert states
    for state in states:
        assert state.dtype == torch.float32
        assert not torch.equal(state, state.to(getattr(torch, precision)).float())
    again = defended(precision, "ddpm", t=2, gradient="checkpoint", tile=1)
    exact = defended("float32", "ddpm", t=2, tile=1)
    assert torch.equal(answers(full, 2)[1], answers(again, 2)[1])
    assert not torch.equal(answers(exact, 2)[1], answers(again, 2)[1])


def test_a_small_gradient_does_not_vanish_in_float16() -> None:
    network = nn.Linear(4, 2)
    nn.init.uniform_(network.weight, 0.1, 1, generator=torch.Generator().manual_seed(1))
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    size = torch.tensor([1e-12, 1.0, 0.0])[:, None]

    def pulled(call: Callable[[Tensor], Tensor]) -> Tensor:
        point = x.clone().requires_grad_()
        return torch.autograd.grad((call(point) * size).sum(), point)[0]

    def plain(point: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return network(point).float()

    exact, found = pulled(network), pulled(InPrecision(network, "float16"))
    assert not pulled(plain)[0].any()  # what the powers of two are for
    torch.testing.assert_close(found, exact, rtol=2e-3, atol=0)


def test_forward_mode_passes() -> None:
    network = InPrecision(nn.Linear(4, 2), "float16")
    x = torch.ones(1, 4)
    value, slope = torch.func.jvp(network, (x,), (x,))
    torch.testing.assert_close(slope, value - network(torch.zeros(1, 4)), rtol=5e-3, atol=5e-3)


@lower
def test_a_run_names_its_precision_and_its_decisions_are_those_of_it(
    tmp_path: Path, precision: Any
) -> None:
    study = Robustness(
        dataset="digits", defense="cm", n=4, tile=8, randomness="fixed", attack="pgd",
        attack_options={"steps": 2}, precision=precision, keep_images=True, eps=0.2,
    )  # fmt: skip
    report = study.run(out=tmp_path / "run")
    assert report.settings["defense"]["precision"] == precision
    assert any(f"the networks in {precision}" in note for note in report.notes)
    with RecordStore.read(tmp_path / "run") as store:
        assert study.recorded(store).precision == precision
        assert sum(precision in note for note in study.report(store).notes) == 1


def test_records_of_float32_say_what_they_said() -> None:
    assert "precision" not in describe(defended("float32"))
    assert describe(defended("bfloat16")) == {
        **describe(defended("float32")), "precision": "bfloat16",
    }  # fmt: skip


def test_a_certificate_says_of_which_networks_it_is(tmp_path: Path) -> None:
    study = Certification(
        dataset="digits", defense="none", classifier="digits-gaussian-025", n=1, samples=100,
        selection=10, precision="bfloat16",
    )  # fmt: skip
    report = study.run(out=tmp_path / "run")
    assert report.settings["defense"]["precision"] == "bfloat16"
    assert "bfloat16: a decision or certificate holds for them" in report.table().replace("\n", " ")


def test_what_was_given_stays_as_it_was() -> None:
    denoiser = load_denoiser("digits-edm")
    assert isinstance(denoiser, EDMDenoiser)
    network = denoiser.network
    purifier = load_purifier(
        "onestep-edm", "digits", denoiser=denoiser, precision="bfloat16", xi=XI
    )
    assert denoiser.network is network
    assert isinstance(purifier.denoiser, EDMDenoiser)
    assert isinstance(purifier.denoiser.network, InPrecision)


class Own(nn.Module):
    """A linear classifier of digits."""

    def __init__(self) -> None:
        """Make the layer."""
        super().__init__()
        self.layer = nn.Linear(64, 10)
        nn.init.uniform_(self.layer.weight, -1, 1, generator=torch.Generator().manual_seed(1))
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.layer(images.flatten(1))
        return logits


class Stubborn(Own):
    """One that computes in float32 whatever is asked."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        with torch.autocast("cpu", enabled=False):
            return super().forward(images)


class Failing(Own):
    """One that fails in a lower precision."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits = super().forward(images)
        if logits.dtype != torch.float32:
            raise TypeError("the scale is float32")
        return logits


@lower
def test_models_of_a_users_are_computed_in_it(precision: str) -> None:
    own = Own()
    defense = defended(precision, "none", classifier=own)
    logits, _ = answers(defense, 3)
    images = load_images("digits", n=3).images
    assert 0 < (logits - own(images)).abs().max() < 0.05
    assert next(own.parameters()).dtype == torch.float32


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: defended("int8"), "precision 'int8' is not known"),
        (lambda: defended("bfloat16", defended("float32")), "is built already"),
        (lambda: load_purifier("none", "digits", precision="float16"), "holds no network"),
        (lambda: defended("float16", boost="joint"), "does not reach the gradients"),
        (
            lambda: defended(
                "bfloat16",
                classifier=nn.Sequential(Own(), nn.Softmax(1)).eval(),
                outputs="probabilities",
            ),
            "rounds probabilities",
        ),
        (lambda: defended("bfloat16", classifier=Stubborn()), "changes no bit"),
        (lambda: defended("bfloat16", classifier=Failing()), "cannot be computed by it"),
        (lambda: CheckGrad(precision="bfloat16"), "float64 proves the code"),
        (lambda: Audit(precision="bfloat16"), "tolerances of the checks"),
        (
            lambda: CertificationSettings(core="digits-classifier", precision="float16"),
            "is not that of a core",
        ),
        (
            lambda: computed_in("float16", nn.Identity(), torch.ones(1, 1).double()),
            "mix two precisions",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(call: Callable[[], object], rule: str) -> None:
    with pytest.raises(BadInput, match=rule):
        call()


VERBS = [
    verb
    for verb in STUDIES
    if "precision" in (kind := STUDIES.get(verb)).__dataclass_fields__
    and "precision" not in getattr(kind, "unused", {})
]


@pytest.mark.parametrize("verb", VERBS)
def test_what_identifies_a_run_of_any_study_names_its_precision(verb: str) -> None:
    assert "bfloat16" in canonical_json(quick(verb, precision="bfloat16").load().settings)
