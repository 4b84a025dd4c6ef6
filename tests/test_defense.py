"""A defense is a plain module: its answers depend on image, id and configuration, nothing else."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advpure.attacks import pgd
from advpure.attacks.oracle import Oracle
from advpure.attacks.projected import PGDSettings
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Noise
from advpure.core.defense import Defense, Policy, _votes
from advpure.core.denoisers import Denoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.data import load_images
from advpure.loading import load_defense, load_purifier
from advpure.purifiers.oneshot import OneStepEDM

Draw = Callable[..., Tensor]
MakeDenoiser = Callable[..., Denoiser]
XI = RandomnessConfig(0)


@pytest.fixture
def classifier(normals: Draw) -> nn.Module:
    """A small convolutional classifier with parameters of its own."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(16 * 64, 10)
    )
    for k, parameter in enumerate(net.parameters()):
        scale = parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 10.0
        parameter.data.copy_(normals(*parameter.shape, seed=k) / scale)
        parameter.requires_grad_(False)
    return net.eval()


@pytest.fixture
def defense(toy_denoiser: MakeDenoiser, classifier: nn.Module) -> Defense:
    """A random defense of four network evaluations and a tile of 16."""
    purifier = load_purifier("ddpm", denoiser=toy_denoiser(), t=4, gradient="checkpoint")
    return Defense(purifier, classifier, xi=XI, tile=16)


def _answer(defense: Defense, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    x = images.clone().requires_grad_()
    logits = defense.at(ids=ids)(x)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    return logits.detach(), gradient


# --- invariance


@pytest.mark.parametrize("scheme", [pytest.param("hash", marks=pytest.mark.slow), "counter"])
@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        pytest.param(Policy("eot", 2), marks=pytest.mark.slow),
        pytest.param(Policy("majority", 3), marks=pytest.mark.slow),
    ],
)
def test_rows_are_bit_identical_for_any_batch_size_and_order(
    scheme: Scheme, policy: Policy, defense: Defense, pictures: Draw, normals: Draw
) -> None:
    defense = Defense(defense.purifier, defense.classifier, xi=RandomnessConfig(1, scheme),
                      policy=policy, tile=4)  # fmt: skip
    images, ids = pictures(64, 1, 8, 8), torch.arange(100, 164)
    logits, gradients = _answer(defense, images, ids)
    for size in (1, 7, 64):
        parts = [_answer(defense, images[a : a + size], ids[a : a + size])
                 for a in range(0, 64, size)]  # fmt: skip
        assert torch.equal(torch.cat([part[0] for part in parts]), logits)
        assert torch.equal(torch.cat([part[1] for part in parts]), gradients)
    order = normals(64).argsort()
    shuffled = _answer(defense, images[order], ids[order])
    assert torch.equal(shuffled[0], logits[order])
    assert torch.equal(shuffled[1], gradients[order])


def test_purifiers_are_invariant_too(defense: Defense, pictures: Draw) -> None:
    purifier = load_purifier("ddpm", denoiser=defense.purifier.denoiser, t=4, tile=16, xi=XI)
    images = pictures(20, 1, 8, 8)
    whole = purifier.at(ids=range(20))(images)
    parts = [purifier.at(ids=[k])(images[k : k + 1]) for k in range(20)]
    assert torch.equal(torch.cat(parts), whole)


def test_an_answer_depends_on_the_id_and_the_seed(defense: Defense, pictures: Draw) -> None:
    image = pictures(1, 1, 8, 8)
    answers = [
        defense.at(ids=[0])(image), defense.at(ids=[1])(image),
        defense.at(ids=[0], xi=RandomnessConfig(1))(image),
        defense.at(ids=[0], xi=XI.fold("attack"))(image),
    ]  # fmt: skip
    for k, one in enumerate(answers):
        for other in answers[k + 1 :]:
            assert not torch.equal(one, other)
    assert torch.equal(defense.at(ids=[0])(image), answers[0])


# --- bind and at


def test_bind_is_in_place_and_returns_the_defense(defense: Defense) -> None:
    assert defense.ids is None
    assert defense.bind([3, 4]) is defense
    assert defense.ids is not None
    assert defense.ids.tolist() == [3, 4]
    given = torch.tensor([1, 2])
    defense.bind(given)
    given[0] = 99  # the binding keeps its own copy
    assert defense.ids.tolist() == [1, 2]


def test_at_changes_the_view_and_nothing_else(defense: Defense, pictures: Draw) -> None:
    defense.bind([0, 1])
    images = pictures(2, 1, 8, 8)
    before = defense(images)
    view = defense.at(ids=[5, 6], xi=RandomnessConfig(9), gradient="bpda")
    assert view is not defense
    assert (view.xi, view.ids.tolist()) == (RandomnessConfig(9), [5, 6])  # type: ignore[union-attr]
    assert view.purifier.gradient == "bpda"
    assert (defense.xi, defense.ids.tolist()) == (XI, [0, 1])  # type: ignore[union-attr]
    assert defense.purifier.gradient == "checkpoint"
    assert torch.equal(defense(images), before)
    view.bind([7, 8])
    assert defense.ids.tolist() == [0, 1]  # type: ignore[union-attr]
    # Weights are shared, not copied.
    assert view.classifier is defense.classifier
    assert view.purifier.denoiser is defense.purifier.denoiser
    for one, other in zip(view.parameters(), defense.parameters(), strict=True):
        assert one is other
    # None keeps.
    same = defense.at()
    assert (same.xi, same.ids.tolist(), same.purifier) == (XI, [0, 1], defense.purifier)  # type: ignore[union-attr]


def test_a_defense_is_a_plain_module(defense: Defense) -> None:
    assert isinstance(defense, nn.Module)
    names = dict(defense.named_parameters())
    assert any(name.startswith("purifier.denoiser.") for name in names)
    assert any(name.startswith("classifier.") for name in names)
    double = defense.double()
    image = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    assert double.bind([0])(image).dtype == torch.float64  # `.to()` reaches the steps' network
    assert (defense.is_random, defense.evaluations) == (True, 5)


def test_a_deterministic_defense_needs_neither_randomness_nor_ids(classifier: nn.Module) -> None:
    defense = Defense(load_purifier("none", tile=0), classifier)
    image = torch.full((2, 1, 8, 8), 0.5)
    assert torch.equal(defense(image), classifier(image))
    assert (defense.is_random, defense.evaluations) == (False, 1)


# --- scopes


def test_shared_scope_ignores_the_order_of_the_batch(defense: Defense, pictures: Draw) -> None:
    shared = defense.at(xi=RandomnessConfig(0, scope="shared"))
    images = pictures(6, 1, 8, 8)
    assert torch.equal(shared(images).flip(0), shared(images.flip(0)))
    assert torch.equal(shared(images[2:3]), shared(images)[2:3])
    assert torch.equal(shared.at(ids=range(6))(images), shared(images))


def test_fresh_scope_draws_anew_every_call_and_reproducibly(
    defense: Defense, pictures: Draw
) -> None:
    fresh_xi = RandomnessConfig(4, scope="fresh")
    images, ids = pictures(2, 1, 8, 8), [3, 8]

    def run() -> list[Tensor]:
        fresh = Defense(defense.purifier, defense.classifier, xi=fresh_xi, tile=16).bind(ids)
        return [fresh(images) for _ in range(3)]

    first, second = run(), run()
    for k in range(3):
        assert torch.equal(first[k], second[k])
        # Call k is the fixed configuration folded by k.
        fixed = RandomnessConfig(4).fold("call", k)
        assert torch.equal(first[k], defense.at(ids=ids, xi=fixed)(images))
    assert not torch.equal(first[0], first[1])


def test_views_of_a_fresh_defense_share_one_counter(defense: Defense, pictures: Draw) -> None:
    fresh = Defense(defense.purifier, defense.classifier, tile=16,
                    xi=RandomnessConfig(4, scope="fresh")).bind([0])  # fmt: skip
    image = pictures(1, 1, 8, 8)
    answers = [fresh(image), fresh.at(gradient="bpda")(image), fresh(image)]
    assert not torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[1], answers[2])
    assert not torch.equal(answers[0], answers[2])


def test_fresh_scope_without_ids_numbers_the_rows(defense: Defense, pictures: Draw) -> None:
    fresh = defense.at(xi=RandomnessConfig(4, scope="fresh"))
    image = pictures(1, 1, 8, 8).expand(3, 1, 8, 8)
    rows = fresh(image)
    assert not torch.equal(rows[0], rows[1])


# --- policies


def test_eot_is_the_mean_over_draws(defense: Defense, pictures: Draw) -> None:
    from advpure.core.chain import Noise

    images, ids = pictures(3, 1, 8, 8), torch.tensor([0, 5, 6])
    eot = Defense(defense.purifier, defense.classifier, xi=XI, policy=Policy("eot", 3)).bind(ids)
    draws = [defense.classifier(defense.purifier.purify(images, Noise(XI, ids, k)))
             for k in range(3)]  # fmt: skip
    torch.testing.assert_close(eot(images), torch.stack(draws).mean(0))
    assert eot.evaluations == 15


@pytest.mark.parametrize(("labels", "decision"), [
    ([2, 2, 1], 2), ([1, 2, 2, 1], 1), ([4, 3, 2, 1, 0], 0), ([3], 3), ([4, 4, 3, 3, 0], 3),
])  # fmt: skip
def test_majority_decides_by_votes_and_ties_go_to_the_lowest_class(
    labels: list[int], decision: int
) -> None:
    logits = nn.functional.one_hot(torch.tensor(labels), 5).float().unsqueeze(1) * 9
    votes = _votes(logits).decided
    assert votes.argmax(1).tolist() == [decision]
    for k in range(5):
        share = max(labels.count(k), 0.5) / len(labels)
        assert votes[0, k].item() == pytest.approx(torch.tensor(share).log().item())


def test_a_landslide_in_one_draw_outvotes_nobody() -> None:
    logits = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 100.0]]])
    assert _votes(logits).decided.argmax(1).tolist() == [0]
    assert logits.mean(0).argmax(1).tolist() == [1]  # the mean would


def test_majority_gradient_is_that_of_the_mean_probability(normals: Draw) -> None:
    logits = normals(4, 2, 5, dtype=torch.float64).requires_grad_()
    weights = normals(2, 5, seed=1, dtype=torch.float64)
    mean = logits.softmax(2).mean(0).log()
    (expected,) = torch.autograd.grad(mean, logits, weights)
    for name in ("decided", "climbed"):
        (found,) = torch.autograd.grad(getattr(_votes(logits), name), logits, weights)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(_votes(logits).climbed, mean)


def test_an_attack_climbs_the_mean_probability_and_votes_judge_it(
    defense: Defense, normals: Draw
) -> None:
    voting = Defense(
        defense.purifier, defense.classifier, xi=XI, policy=Policy("majority", 5), tile=16
    )
    images, ids = normals(16, 1, 8, 8).mul(0.2).add(0.5).clamp(0, 1), torch.arange(16)
    labels = voting.at(ids=ids)(images).argmax(1).roll(1)
    x = images.clone().requires_grad_()
    drawn = [voting._once(x, Noise(XI, ids, k, k)) for k in range(5)]
    probability = torch.stack(drawn).softmax(2).mean(0)
    losses = -probability[range(16), labels].log()
    (expected,) = torch.autograd.grad(losses.sum(), x)
    slope = Oracle(voting, PGDSettings(eps=0.1)).slope(images, labels, ids, step=0)
    torch.testing.assert_close(slope.loss, losses.detach())
    torch.testing.assert_close(slope.gradient, expected)
    votes = torch.stack(drawn).argmax(2).mode(0).values
    assert torch.equal(slope.success, votes != labels)
    assert torch.equal(voting.at(ids=ids)(images), voting.at(ids=ids).answer(images).decided)


def test_an_attack_on_a_vote_that_is_flat_sees_its_steps(normals: Draw) -> None:
    """All voters agree at every step, so the shares say nothing of any of them."""
    weights = normals(64, seed=3)

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x.flatten(1) @ weights
            return torch.stack([score + 40, -score - 40], 1)

    purifier = load_purifier("onestep-edm", denoiser=GaussianDenoiser(torch.zeros(1, 8, 8), 0.5))
    voting = Defense(purifier, Two().eval(), xi=XI, policy=Policy("majority", 3))
    images, ids = torch.full((4, 1, 8, 8), 0.5), [0, 1, 2, 3]
    labels = torch.zeros(4, dtype=torch.int64)
    oracle = Oracle(voting, PGDSettings(eps=0.1, loss="margin"))
    found = []
    for steps in (1, 4, 8):
        result = pgd(voting.bind(ids), images, labels, eps=0.1, steps=steps, step_size=0.01)
        assert not result.success.any()
        assert (voting.at(ids=ids)(result.images)[:, 0] == 0).all()  # the logarithm of all votes
        found.append(oracle.judge(result.images, labels, torch.tensor(ids), step=0).loss)
    assert (found[0] < found[1]).all()
    assert (found[1] < found[2]).all()


def test_a_defense_that_answers_otherwise_is_attacked_as_it_answers(
    defense: Defense, normals: Draw
) -> None:
    class Reversed(Defense):
        def forward(self, images: Tensor) -> Tensor:
            return -super().forward(images)

    other = Reversed(defense.purifier, defense.classifier, xi=XI, tile=16).bind(range(4))
    images = normals(4, 1, 8, 8).mul(0.2).add(0.5).clamp(0, 1)
    labels = other(images).argmax(1)
    assert not torch.equal(labels, defense.bind(range(4))(images).argmax(1))
    found = Oracle(other, PGDSettings(eps=0.1)).judge(images, labels, torch.arange(4), step=0)
    assert not found.success.any()
    expected = nn.functional.cross_entropy(other(images), labels, reduction="none")
    torch.testing.assert_close(found.loss, expected)


def test_majority_may_repeat_the_reverse_noise_alone(classifier: nn.Module) -> None:
    denoiser = GaussianDenoiser(torch.zeros(1, 8, 8), 0.1)
    image = torch.full((1, 1, 8, 8), 0.5)
    for kind, options in (("ddim", {"t": 50}), ("ddpm", {"t": 50})):
        purifier = load_purifier(kind, denoiser=denoiser, tile=0, **options)
        seen: list[Tensor] = []

        class Spy(nn.Module):
            def forward(self, x: Tensor, seen: list[Tensor] = seen) -> Tensor:
                seen.append(x)
                return classifier(x)  # type: ignore[no-any-return]

        policy = Policy("majority", 2, reverse_only=True)
        Defense(purifier, Spy(), xi=XI, policy=policy).bind([0])(image)
        # DDIM has no reverse noise, so with the forward noise kept nothing changes.
        assert torch.equal(*seen) == (kind == "ddim")


@pytest.mark.parametrize(("text", "policy"), [
    ("single", Policy()), ("eot:10", Policy("eot", 10)), ("majority:3", Policy("majority", 3)),
])  # fmt: skip
def test_policies_are_parsed(text: str, policy: Policy) -> None:
    assert Policy.parse(text) == policy


@pytest.mark.parametrize(("text", "rule"), [
    ("vote:3", "policy 'vote' is not known; use single, eot or majority"),
    ("eot:x", "policy 'eot:x' has no number of draws"), ("eot:-1", "has no number"),
    ("eot:0", "draws 0 is not a whole number from 1 to"), ("single:3", "3 draws do not fit single"),
])  # fmt: skip
def test_unusable_policies_name_the_rule(text: str, rule: str) -> None:
    with pytest.raises(BadInput, match=rule):
        Policy.parse(text)


# --- bad use


@pytest.mark.parametrize(("change", "images", "rule"), [
    ({"ids": [0]}, torch.full((2, 1, 8, 8), 0.5), "1 sample ids do not match a batch of 2 images"),
    ({"ids": [0]}, torch.full((1, 1, 8, 8), 1.5), "leave"),
    ({"ids": [0]}, torch.full((1, 1, 8, 8), -0.5), "map them with"),
    ({"ids": [0]}, torch.full((1, 1, 8, 8), float("nan")), "NaN"),
    ({"ids": [0]}, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "not floating point"),
    ({"ids": [0]}, torch.zeros(1, 8, 8), "not .B, C, H, W."),
    ({}, torch.full((1, 1, 8, 8), 0.5), "has no sample ids"),
])  # fmt: skip
def test_bad_batches_name_the_rule(
    change: dict[str, object], images: Tensor, rule: str, defense: Defense
) -> None:
    with pytest.raises(BadInput, match=rule):
        defense.at(**change)(images)  # type: ignore[arg-type]


def test_a_random_defense_without_randomness_says_so(defense: Defense, pictures: Draw) -> None:
    bare = Defense(defense.purifier, defense.classifier, tile=16).bind([0])
    with pytest.raises(BadInput, match="has no randomness configuration; pass xi="):
        bare(pictures(1, 1, 8, 8))


@pytest.mark.parametrize("ids", [[-1], [0.5], torch.zeros(1), torch.zeros(1, 1).long()])
def test_ids_that_are_no_ids_are_refused(ids: object, defense: Defense) -> None:
    with pytest.raises(BadInput):
        defense.bind(ids)  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        defense.at(ids=ids)  # type: ignore[arg-type]


def test_an_empty_batch_gives_no_answers(defense: Defense) -> None:
    assert defense.bind([])(torch.zeros(0, 1, 8, 8)).shape == (0, 10)


def test_a_deep_copy_answers_alike(defense: Defense, pictures: Draw) -> None:
    images = pictures(2, 1, 8, 8)
    assert torch.equal(copy.deepcopy(defense.bind([0, 1]))(images), defense(images))


def test_the_trajectory_of_a_purifier_ends_at_its_result(defense: Defense, pictures: Draw) -> None:
    purifier = load_purifier("ddpm", denoiser=defense.purifier.denoiser, t=4, tile=0, xi=XI)
    images = pictures(2, 1, 8, 8)
    states = list(purifier.bind([0, 1]).trajectory(images))
    assert [step.phase for step, _ in states] == ["forward"] * 4 + ["reverse"] * 4
    assert torch.equal(states[-1][1], purifier(images))


@pytest.mark.slow
def test_shipped_defenses_are_bit_identical_for_any_batch_size_and_order() -> None:
    from advpure import load_defense, load_images

    images, _, ids = load_images("digits", n=64)
    for name, options in (("ddpm", {"t": 10}), ("cm", {}), ("none", {})):
        defense = load_defense(name, xi=XI, **options)  # type: ignore[arg-type]
        logits, gradients = _answer(defense, images, ids)
        for size in (1, 7):
            parts = [_answer(defense, images[a : a + size], ids[a : a + size])
                     for a in range(0, 28, size)]  # fmt: skip
            assert torch.equal(torch.cat([part[0] for part in parts]), logits[:28])
            assert torch.equal(torch.cat([part[1] for part in parts]), gradients[:28])
        flipped = _answer(defense, images.flip(0), ids.flip(0))
        assert torch.equal(flipped[0].flip(0), logits)
        assert torch.equal(flipped[1].flip(0), gradients)


def test_a_copied_or_pickled_defense_computes_with_its_own_network() -> None:
    images, _, ids = load_images("digits", n=2)
    defense = load_defense("ddpm", t=3, xi=RandomnessConfig(0)).bind(ids)
    expected = defense(images)
    twin = pickle.loads(pickle.dumps(defense))
    assert torch.equal(twin(images), expected)
    wide = copy.deepcopy(defense).double()
    assert wide(images.double()).dtype == torch.float64
    assert torch.allclose(wide(images.double()), expected.double(), atol=1e-3)
    assert torch.equal(defense(images), expected)  # the original's network kept its precision


def test_a_purifier_whose_steps_hold_a_foreign_network_is_not_copied() -> None:
    network = GaussianDenoiser(torch.zeros(1, 2, 2), 0.25)
    purifier = Purifier("mine", OneStepEDM(sigma=0.1).chain(network), network)
    with pytest.raises(BadInput, match="cannot be copied"):
        copy.deepcopy(purifier)
