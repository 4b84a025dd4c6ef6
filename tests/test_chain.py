"""Chains: noise keyed by step, composition, cutting, counting, trajectories."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.core.chain import Chain, Noise, Step
from advpure.core.randomness import RandomnessConfig

Draw = Callable[..., Tensor]
XI = RandomnessConfig(3)
IDS = torch.tensor([4, 9])


def add(time: int, phase: str = "forward", scale: float = 1.0, **options: object) -> Step:
    """Make the step x + scale z."""
    return Step(
        name=f"add {time}", phase=phase, time=time, move=lambda x, z: x + scale * z, noisy=True,
        gain=1.0, **options,
    )  # type: ignore[arg-type] # fmt: skip


def shrink(factor: float, time: int = 0, **options: object) -> Step:
    """Make the step factor x, at the price of one evaluation."""
    return Step(
        name="shrink", phase="reverse", time=time, move=lambda x, z: factor * x, evaluations=1,
        **options,
    )  # type: ignore[arg-type] # fmt: skip


def test_a_chain_runs_its_steps_in_order_with_their_own_noise() -> None:
    chain = Chain([add(1), shrink(0.5), add(2), add(2, "reverse", 3.0)])
    x = torch.zeros(2, 1, 2, 2)
    forward = [XI.normal(IDS, "forward", t, (1, 2, 2)) for t in (1, 2)]
    expected = 0.5 * forward[0] + forward[1] + 3 * XI.normal(IDS, "reverse", 2, (1, 2, 2))
    torch.testing.assert_close(chain.run(x, Noise(XI, IDS)), expected)


def test_the_step_gets_noise_in_its_own_dtype_and_only_if_it_asks() -> None:
    seen = []

    def look(x: Tensor, z: Tensor | None) -> Tensor:
        seen.append(z)
        return x

    quiet = Step(name="quiet", phase="reverse", time=1, move=look)
    loud = Step(name="loud", phase="reverse", time=1, move=look, noisy=True)
    Chain([quiet, loud]).run(torch.zeros(2, 1, 2, 2, dtype=torch.float64), Noise(XI, IDS))
    assert seen[0] is None
    assert seen[1].dtype == torch.float64
    assert torch.equal(seen[1].float(), XI.normal(IDS, "reverse", 1, (1, 2, 2)))


def test_draws_repeat_forward_and_reverse_noise_separately() -> None:
    x = torch.zeros(2, 1, 2, 2)
    for step, phase in ((add(1), "forward"), (add(1, "reverse"), "reverse")):
        made = Noise(XI, IDS, 0, 5).of(step, x)
        draw = 5 if phase == "reverse" else 0
        assert torch.equal(made, XI.normal(IDS, phase, 1, (1, 2, 2), draw))  # type: ignore[arg-type]
        both = Noise(XI, IDS, 5).of(step, x)
        assert torch.equal(both, XI.normal(IDS, phase, 1, (1, 2, 2), 5))  # type: ignore[arg-type]


def test_composition_keeps_the_noise_of_the_parts_independent() -> None:
    part = Chain([add(1)])
    x = torch.zeros(2, 1, 50, 50)
    states = [x, *(y for _, y in (part + part + part).states(x, Noise(XI, IDS)))]
    first, second, third = (after - before for before, after in pairwise(states))
    assert torch.equal(first, part.run(x, Noise(XI, IDS)))  # the first keeps its noise
    n = first.numel()
    for one, other in ((first, second), (first, third), (second, third)):
        r = float((one * other).mean())
        assert abs(r) * n**0.5 < 4.42  # alpha = 1e-5, two-sided


def test_composition_is_associative_and_counts_add_up() -> None:
    a, b, c = Chain([add(1), shrink(0.5)]), Chain([add(1)]), Chain([add(1), shrink(2.0), add(2)])
    left, right = (a + b) + c, a + (b + c)
    assert [step.key for step in left] == [step.key for step in right]
    assert left.evaluations == 2
    assert left.draws == 4
    assert len(left) == 6
    x = torch.ones(2, 1, 2, 2)
    assert torch.equal(left.run(x, Noise(XI, IDS)), right.run(x, Noise(XI, IDS)))
    assert torch.equal((Chain() + a).run(x, Noise(XI, IDS)), a.run(x, Noise(XI, IDS)))


def test_cutting_gives_chains_that_run_on(normals: Draw) -> None:
    chain = Chain([add(1), shrink(0.5), add(2), shrink(0.25), add(3, "reverse")])
    x, noise = normals(2, 1, 2, 2), Noise(XI, IDS)
    whole = chain.run(x, noise)
    for k in range(len(chain) + 1):
        assert torch.equal(chain[k:].run(chain[:k].run(x, noise), noise), whole)
    assert isinstance(chain[1:3], Chain)
    assert chain[1:3].evaluations == 1
    assert chain[1] is chain.steps[1]
    assert chain[-1].time == 3


def test_the_trajectory_ends_at_the_result_and_names_its_steps(normals: Draw) -> None:
    chain = Chain([add(1), shrink(0.5, sigma=0.3, scale=0.9), add(2)])
    x, noise = normals(2, 1, 2, 2), Noise(XI, IDS)
    steps = list(chain.states(x, noise))
    assert [step.name for step, _ in steps] == ["add 1", "shrink", "add 2"]
    assert torch.equal(steps[-1][1], chain.run(x, noise))
    assert torch.equal(steps[1][1], chain[:2].run(x, noise))
    assert (steps[1][0].sigma, steps[1][0].scale) == (0.3, 0.9)


def test_counting_runs_nothing() -> None:
    def explode(x: Tensor, z: Tensor | None) -> Tensor:
        raise AssertionError("a step ran")

    step = Step(name="x", phase="reverse", time=1, move=explode, evaluations=3, noisy=True)
    quiet = Step(name="y", phase="reverse", time=1, move=explode, evaluations=1)
    chain = Chain([step]) + Chain([step, quiet])
    assert (chain.evaluations, chain.draws, chain.is_random, len(chain)) == (7, 2, True, 3)
    assert not Chain([quiet]).is_random
    assert (Chain().evaluations, Chain().draws) == (0, 0)


def test_two_steps_with_the_same_noise_are_refused() -> None:
    with pytest.raises(BadInput, match="draws the same noise twice; give one step another time"):
        Chain([add(1), shrink(0.5), add(1)])
    Chain([add(1), add(1, "reverse"), add(1, stream=1), shrink(1.0, 1)])  # four different keys


def test_missing_randomness_and_missing_ids_name_the_rule() -> None:
    x = torch.zeros(2, 1, 2, 2)
    with pytest.raises(BadInput, match=r"has no randomness configuration; pass xi="):
        Chain([add(1)]).run(x, Noise(None, IDS))
    with pytest.raises(BadInput, match=r"has no sample ids.*bind\(ids\).*shared"):
        Chain([add(1)]).run(x, Noise(XI, None))
    shared = RandomnessConfig(3, scope="shared")
    noise = Chain([add(1)]).run(x, Noise(shared, None))
    assert torch.equal(noise[0], noise[1])
    assert torch.equal(Chain([shrink(0.5)]).run(x, Noise(None, None)), x)


@pytest.mark.parametrize("phase", ["backward", "Reverse", ""])
def test_a_step_of_an_unknown_phase_is_refused(phase: str) -> None:
    with pytest.raises(BadInput, match=f"phase '{phase}' of step 'own' is not known; use forward"):
        Step(name="own", phase=phase, time=1, move=lambda x, z: x)  # type: ignore[arg-type]
