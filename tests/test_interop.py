"""Attack libraries see a defense as a plain module: foolbox attacks it unchanged."""

from typing import Any

import pytest
import torch

from advpure.attacks import pgd
from advpure.base.errors import BadInput
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import load_defense

foolbox = pytest.importorskip("foolbox")

EPS, STEPS = 0.15, 10
STEP = EPS / 4


def foolbox_run(defense: Any, images: torch.Tensor, labels: torch.Tensor, norm: str) -> Any:
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    attack = kind(rel_stepsize=0.25, steps=STEPS, random_start=False)
    model = foolbox.PyTorchModel(defense, bounds=(0, 1), device="cpu")
    found, _, fooled = attack(model, images, labels, epsilons=EPS)
    return found, fooled


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("name", "strength"), [("cm", {}), ("ddpm", {"t": 5})])
def test_foolbox_walks_as_we_do(name: str, strength: dict[str, Any], norm: Any) -> None:
    images, labels, ids = load_images(n=6)
    defense = load_defense(name, xi=RandomnessConfig(0), **strength).bind(ids).eval()
    theirs, fooled = foolbox_run(defense, images, labels, norm)
    ours = pgd(
        defense, images, labels, eps=EPS, norm=norm, steps=STEPS, step_size=STEP,
        random_start=False, stop="never",
    )  # fmt: skip
    assert (ours.images - images).abs().amax() > 0.01
    # A pixel whose gradient is near zero may step either way: none does here.
    torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-6)
    assert ours.success.tolist() == fooled.tolist()


def test_foolbox_lowers_the_accuracy_of_a_bound_defense() -> None:
    images, labels, ids = load_images(n=32)
    defense = load_defense("cm", xi=RandomnessConfig(0)).bind(ids).eval()
    model = foolbox.PyTorchModel(defense, bounds=(0, 1), device="cpu")
    clean = foolbox.accuracy(model, images, labels)
    attack = foolbox.attacks.LinfPGD(steps=20, random_start=False)
    _, found, fooled = attack(model, images, labels, epsilons=0.15)
    assert clean >= 30 / 32
    assert float(fooled.float().mean()) > 0.2
    # The verdict holds outside of foolbox: the defense under fixed randomness is one function.
    assert (defense(found).argmax(1) != labels).tolist() == fooled.tolist()


@pytest.mark.slow
def test_a_library_that_reorders_needs_shared_randomness() -> None:
    images, labels, ids = load_images(n=8)
    keyed = load_defense("cm", xi=RandomnessConfig(0)).bind(ids).eval()
    with pytest.raises(BadInput, match="8 sample ids do not match a batch of 3 images"):
        keyed(images[:3])
    unbound = load_defense("cm", xi=RandomnessConfig(0)).eval()
    with pytest.raises(BadInput, match="has no sample ids"):
        unbound(images)
    shared = load_defense("cm", xi=RandomnessConfig(0, scope="shared")).eval()
    order = torch.tensor([5, 2, 7])
    whole = shared(images)
    assert shared(images[order]).equal(whole[order])
    assert not whole.equal(keyed(images))
    # So an attack may ask about any rows, in any order, without being told of ids.
    model = foolbox.PyTorchModel(shared, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfDeepFoolAttack(steps=10)
    _, found, fooled = attack(model, images, labels, epsilons=0.3)
    assert fooled.any()
    assert (shared(found).argmax(1) != labels).tolist() == fooled.tolist()


def test_fresh_scope_draws_anew_at_every_call_and_repeats_from_the_start() -> None:
    images, _, ids = load_images(n=3)

    def answers() -> list[torch.Tensor]:
        defense = load_defense("cm", xi=RandomnessConfig(0, scope="fresh")).bind(ids)
        return [defense(images) for _ in range(2)]

    first, again = answers(), answers()
    assert not first[0].equal(first[1])
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
