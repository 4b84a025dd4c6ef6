"""Exact gradients, whatever the mode remembers; approximations that are what they say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advpure.base.errors import BadInput
from advpure.base.memory import STEPS
from advpure.core.chain import Chain, Noise, Step
from advpure.core.defense import Defense
from advpure.core.denoisers import Denoiser, EDMDenoiser
from advpure.core.gradients import KEPT_STATES, replace_gradient, run_chain
from advpure.core.meter import metered
from advpure.core.randomness import RandomnessConfig, set_noise_cache
from advpure.core.stored import set_step_memory
from advpure.loading import load_purifier
from advpure.purifiers import PURIFIERS

Draw = Callable[..., Tensor]
MakeDenoiser = Callable[..., Denoiser]
XI = RandomnessConfig(0)
OPTIONS: dict[str, dict[str, object]] = {
    "ddpm": {"t": 12}, "reverse": {"t": 12, "prescale": True}, "ddim": {"t": 12, "eta": 0.5},
    "vpsde": {"t": 12}, "pf-ode": {"nodes": 6}, "cm": {"steps": 3}, "cm-ft": {"sigma": 0.5},
}  # fmt: skip


def _gradient(module: nn.Module, images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    x = images.clone().requires_grad_()
    y = module(x)
    (gradient,) = torch.autograd.grad(y, x, weights)
    return y.detach(), gradient


@pytest.mark.parametrize("name", PURIFIERS.names())
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_checkpoint_equals_full(
    name: str, dtype: torch.dtype, bound: float, toy_denoiser: MakeDenoiser, pictures: Draw,
    normals: Draw,
) -> None:  # fmt: skip
    purifier = load_purifier(
        name, denoiser=toy_denoiser(dtype=dtype), tile=0, xi=XI, **OPTIONS.get(name, {})
    ).bind([2, 5, 9])
    images, weights = pictures(3, 1, 8, 8, dtype=dtype), normals(3, 1, 8, 8, dtype=dtype)
    value, full = _gradient(purifier.at(gradient="full"), images, weights)
    again, recomputed = _gradient(purifier.at(gradient="checkpoint"), images, weights)
    assert torch.equal(again, value)
    assert float(full.norm()) > 0.1
    assert float((recomputed - full).norm() / full.norm()) <= bound


@pytest.mark.parametrize("length", [1, KEPT_STATES - 1, KEPT_STATES + 1, 3 * KEPT_STATES + 7])
def test_chains_longer_than_the_kept_states_are_cut_into_segments(
    length: int, normals: Draw
) -> None:
    def bend(x: Tensor, z: Tensor | None) -> Tensor:
        return x + 0.05 * torch.sin(3 * x)

    def step(k: int) -> Step:
        # Irregular runs of steps with and without a known derivative, with and without noise.
        if k % 7 in (2, 3, 4) or 100 < k < 160:
            return Step(name="g", phase="forward", time=k, move=lambda x, z: 0.99 * x + 0.1 * z,
                        noisy=True, gain=0.99)  # fmt: skip
        if k % 5 == 0:
            return Step(name="n", phase="reverse", time=k, noisy=True,
                        move=lambda x, z: bend(x, None) * (1 + 0.1 * z))  # fmt: skip
        return Step(name="b", phase="reverse", time=k, move=bend)

    chain, noise = Chain([step(k) for k in range(length)]), Noise(XI, torch.tensor([1, 2]))
    weights, x = normals(2, 1, 2, 2, dtype=torch.float64), normals(2, 1, 2, 2, seed=1).double()
    full, recomputed = (
        torch.autograd.grad(run_chain(chain, y, noise, mode), y, weights)[0]
        for mode in ("full", "checkpoint")  # type: ignore[assignment]
        for y in [x.clone().requires_grad_()]
    )
    torch.testing.assert_close(recomputed, full, rtol=1e-12, atol=1e-14)


# --- memory


@pytest.mark.parametrize("name", ["ddpm", "cm", "vpsde"])
@pytest.mark.parametrize("megabytes", [0.25, 16.0])  # a part of the steps, all of them
@pytest.mark.parametrize("states", [KEPT_STATES, 5])
def test_steps_that_are_stored_change_no_bit_and_no_count(
    name: str, megabytes: float, states: int, toy_denoiser: MakeDenoiser, pictures: Draw,
    normals: Draw, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("advpure.core.gradients.KEPT_STATES", states)
    purifier = load_purifier(
        name, denoiser=toy_denoiser(dtype=torch.float32), tile=2, xi=XI, gradient="checkpoint",
        **OPTIONS[name],
    ).bind([2, 5, 9])  # fmt: skip
    images, weights = pictures(3, 1, 8, 8), normals(3, 1, 8, 8)
    answers, counts = [], []
    for memory in (0.0, megabytes, megabytes):  # weighed, then stored
        set_step_memory(memory)
        try:
            rows: list[int] = []
            x = images.clone().requires_grad_()
            with metered(rows.append):
                y = purifier(x)
                held = STEPS.held
                (gradient,) = torch.autograd.grad(y, x, weights, retain_graph=True)
                counts.append(sum(rows))
            assert STEPS.held == 0  # what was taken is given back
            again = torch.autograd.grad(y, x, weights)[0]  # all of it recomputed
            answers.append((y.detach(), gradient, again))
        finally:
            set_step_memory(0)
    assert 0 < held <= megabytes * 2**20
    assert len(set(counts)) == 1
    for values in zip(*answers, strict=True):
        assert all(torch.equal(value, values[0]) for value in values)
    assert torch.equal(answers[0][1], answers[0][2])


def test_what_no_gradient_asks_for_is_not_stored_and_forgotten_graphs_are_given_back(
    toy_denoiser: MakeDenoiser, pictures: Draw
) -> None:
    purifier = load_purifier("ddpm", denoiser=toy_denoiser(), t=12, xi=XI, gradient="checkpoint")
    images = pictures(2, 1, 8, 8).requires_grad_()
    set_step_memory(16)
    try:
        purifier.bind([0, 1])(images)
        kept = purifier(images)
        assert STEPS.held > 0
        del kept
        assert STEPS.held == 0
        with torch.no_grad():
            purifier(images)
        purifier(images.detach())
        assert STEPS.held == 0
    finally:
        set_step_memory(0)


class _Peak(TorchDispatchMode):
    """Follow the bytes of all live tensor storages, forwards and backwards, on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)
                self.live[reference.cdata] = (reference, storage.nbytes())
        self.live = {k: v for k, v in self.live.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def _peak(t: int, mode: str, network: nn.Module) -> int:
    purifier = load_purifier(
        "ddpm", denoiser=EDMDenoiser(network), t=t, tile=0, xi=XI, gradient=mode
    )  # type: ignore[arg-type]
    images = torch.full((4, 1, 8, 8), 0.5, requires_grad=True)
    set_noise_cache(0)
    try:
        with _Peak() as memory:
            purifier.bind(range(4))(images).sum().backward()
    finally:
        set_noise_cache(8)
    return memory.peak


@pytest.mark.slow
def test_memory_of_exact_gradients_does_not_grow_with_the_chain(normals: Draw) -> None:
    class Wide(nn.Module):
        """Two layers of 192 channels: a state is small beside one evaluation, as in a U-Net."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 192, 1), nn.Conv2d(192, 1, 1)
            for k, parameter in enumerate(self.parameters()):
                parameter.data.copy_(0.1 * normals(*parameter.shape, seed=k))
                parameter.requires_grad_(False)

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            out: Tensor = self.last(torch.tanh(self.first(x)))
            return out

    network = Wide()
    peaks = {t: _peak(t, "checkpoint", network) for t in (10, 100, 1000)}
    assert max(peaks.values()) <= 1.3 * min(peaks.values()), peaks
    # The measure does see growth: plain autograd needs one evaluation's memory per step.
    full = {t: _peak(t, "full", network) for t in (10, 40)}
    assert full[40] > 3 * full[10]
    assert full[40] > 10 * peaks[1000]


# --- approximations


def _classifier(normals: Draw) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 5)).double()
    for k, parameter in enumerate(net.parameters()):
        parameter.data.copy_(0.5 * normals(*parameter.shape, seed=k))
    return net.requires_grad_(False)


def test_bpda_gradient_is_the_classifier_gradient_at_the_purified_point(
    toy_denoiser: MakeDenoiser, pictures: Draw, normals: Draw
) -> None:
    classifier = _classifier(normals)
    purifier = load_purifier("ddpm", denoiser=toy_denoiser(dtype=torch.float64), t=8, tile=0)
    defense = Defense(purifier, classifier, xi=XI, gradient="bpda").bind([0, 1])
    images, labels = pictures(2, 1, 8, 8, dtype=torch.float64), torch.tensor([1, 3])
    x = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(
        nn.functional.cross_entropy(defense(x), labels, reduction="sum"), x
    )
    purified = purifier.at(ids=[0, 1], xi=XI)(images).detach().requires_grad_()
    (expected,) = torch.autograd.grad(
        nn.functional.cross_entropy(classifier(purified), labels, reduction="sum"), purified
    )
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_eot_gradient_is_the_mean_of_the_gradients_of_its_draws(
    toy_denoiser: MakeDenoiser, pictures: Draw, normals: Draw
) -> None:
    # For a loss that is linear in the logits; for others the mean does not pass the loss.
    from advpure.core.defense import Policy

    purifier = load_purifier("onestep-edm", denoiser=toy_denoiser(dtype=torch.float64), tile=0)
    classifier, weights = _classifier(normals), normals(2, 5, seed=8, dtype=torch.float64)
    images = pictures(2, 1, 8, 8, dtype=torch.float64)
    eot = Defense(purifier, classifier, xi=XI, policy=Policy("eot", 4)).bind([0, 1])
    mean = _gradient(eot, images, weights)[1]
    singles = []
    for k in range(4):
        x = images.clone().requires_grad_()
        logits = classifier(purifier.purify(x, Noise(XI, torch.tensor([0, 1]), k)))
        singles.append(torch.autograd.grad(logits, x, weights)[0])
    torch.testing.assert_close(mean, torch.stack(singles).mean(0), rtol=1e-12, atol=1e-15)
    assert not torch.allclose(singles[0], singles[1])


@pytest.mark.parametrize("name", ["ddpm", "reverse", "ddim", "vpsde", "densepure"])
def test_surrogate_gradient_is_that_of_the_shorter_chain(
    name: str, toy_denoiser: MakeDenoiser, pictures: Draw, normals: Draw
) -> None:
    options: dict[str, object] = {"t": 30} if name != "densepure" else {}
    purifier = load_purifier(
        name, denoiser=toy_denoiser(dtype=torch.float64), tile=0, xi=XI, **options
    ).bind([4])
    shorter = purifier.surrogate
    assert shorter is not None
    assert 0 < shorter.evaluations < purifier.chain.evaluations
    images, weights = pictures(1, 1, 8, 8, dtype=torch.float64), normals(1, 1, 8, 8).double()
    value, found = _gradient(purifier.at(gradient="surrogate"), images, weights)
    assert torch.equal(value, purifier(images))  # the value is the long chain's
    noise = Noise(XI, torch.tensor([4]))
    states = (2 * images - 1).requires_grad_()
    (expected,) = torch.autograd.grad(shorter.run(states, noise), states, weights)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", ["full", "checkpoint", "bpda", "surrogate"])
def test_the_value_is_the_same_in_every_mode(
    mode: str, toy_denoiser: MakeDenoiser, pictures: Draw
) -> None:
    purifier = load_purifier("ddpm", denoiser=toy_denoiser(), t=20, tile=0, xi=XI).bind([0, 1])
    images = pictures(2, 1, 8, 8)
    plain = purifier.at(gradient="full")(images)
    with_graph = purifier.at(gradient=mode)(images.clone().requires_grad_())  # type: ignore[arg-type]
    assert torch.equal(plain, with_graph)
    assert with_graph.requires_grad
    with torch.no_grad():
        assert torch.equal(purifier.at(gradient=mode)(images), plain)  # type: ignore[arg-type]


def test_replaced_gradients() -> None:
    x = torch.tensor([0.3, -2.0], requires_grad=True)
    y = replace_gradient(x, torch.round, lambda v: v**2)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == [0.0, -2.0]
    assert gradient.tolist() == pytest.approx([0.6, -4.0])


@pytest.mark.parametrize("mode", ["full", "checkpoint"])
def test_a_step_that_lets_nothing_through_has_gradient_zero(mode: str) -> None:
    cut = Step(name="cut", phase="reverse", time=1, move=lambda x, z: x.detach() * 2)
    keep = Step(name="keep", phase="reverse", time=2, move=lambda x, z: x * x)
    for chain in (Chain([keep, cut, keep]), Chain([cut])):
        x = torch.ones(1, 1, 1, 1, requires_grad=True)
        y = run_chain(chain, x, Noise(None, None), mode) + x  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.item() == 1.0  # that of the added x alone


def test_the_short_chains_default_to_full_and_the_long_ones_to_checkpoint() -> None:
    from advpure.core.analytic import GaussianDenoiser

    denoiser = GaussianDenoiser(torch.zeros(1, 1, 1), 1.0)
    modes = {name: load_purifier(name, denoiser=denoiser).gradient for name in PURIFIERS}
    assert {name for name, mode in modes.items() if mode == "full"} == {
        "none", "rrcm", "onestep-ddpm", "onestep-edm", "calibrated", "cm", "cm-ft",
    }  # fmt: skip
    assert set(modes.values()) == {"full", "checkpoint"}


@pytest.mark.parametrize("name", ["dpm", "pf-ode", "cm", "onestep-edm"])
def test_a_missing_surrogate_names_the_rule(name: str, toy_denoiser: MakeDenoiser) -> None:
    purifier = load_purifier(name, denoiser=toy_denoiser(), tile=0, xi=XI, gradient="surrogate")
    with pytest.raises(BadInput, match="gradient 'surrogate' has no shorter chain"):
        purifier.bind([0])(torch.full((1, 1, 8, 8), 0.5))


def test_an_unknown_mode_names_the_known_ones(toy_denoiser: MakeDenoiser) -> None:
    rule = "gradient 'adjoint' is not known; known: full, checkpoint, bpda, surrogate"
    with pytest.raises(BadInput, match=rule):
        load_purifier("cm", denoiser=toy_denoiser(), gradient="adjoint")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=rule):
        load_purifier("cm", denoiser=toy_denoiser()).at(gradient="adjoint")  # type: ignore[arg-type]


def test_second_derivatives_are_refused_rather_than_wrong(
    toy_denoiser: MakeDenoiser, pictures: Draw
) -> None:
    purifier = load_purifier(
        "ddpm", denoiser=toy_denoiser(), t=5, tile=0, xi=XI, gradient="checkpoint"
    ).bind([0])
    x = pictures(1, 1, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(purifier(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.slow
def test_memory_stays_constant_through_the_shipped_network() -> None:
    from advpure.loading import load_denoiser

    network = load_denoiser("digits-edm").network
    assert isinstance(network, nn.Module)
    peaks = [_peak(t, "checkpoint", network) for t in (10, 100, 1000)]
    assert max(peaks) <= 1.3 * min(peaks), peaks
