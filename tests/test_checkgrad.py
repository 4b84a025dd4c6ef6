"""The gradient check passes every purifier and catches gradients that are wrong on purpose."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from advpure.analysis.check_grad.gradients import (
    Bounds,
    GradientCheck,
    PurifierFactory,
    check_gradients,
)
from advpure.analysis.check_grad.study import CheckGrad
from advpure.base.errors import BadInput
from advpure.base.registry import _Entry
from advpure.base.units import to_model
from advpure.cli import run
from advpure.core.chain import Chain, Step
from advpure.core.denoisers import Denoiser
from advpure.core.purifier import Purifier
from advpure.core.recipe import Recipe
from advpure.data import load_images
from advpure.loading import load_purifier
from advpure.purifiers import PURIFIERS

MakeDenoiser = Callable[..., Denoiser]
Move = Callable[[Tensor, Tensor | None], Tensor]

STRENGTH: dict[str, dict[str, object]] = {
    "ddpm": {"t": 6, "schedule_steps": 30}, "reverse": {"t": 6, "schedule_steps": 30},
    "ddim": {"t": 6, "schedule_steps": 30}, "vpsde": {"t": 150, "dt": 0.025},
    "dpm": {"t": 250, "evaluations": 8}, "pf-ode": {"nodes": 5}, "cm": {"steps": 2},
    "densepure": {"steps": 3},
}  # fmt: skip


def _built(name: str, make: MakeDenoiser, **options: object) -> PurifierFactory:
    return lambda dtype: load_purifier(name, denoiser=make(dtype=dtype), tile=0, **options)


@pytest.mark.parametrize("name", PURIFIERS.names())
def test_every_purifier_passes(name: str, toy_denoiser: MakeDenoiser) -> None:
    factory = _built(name, toy_denoiser, **STRENGTH.get(name, {}))
    (check,) = check_gradients(factory, n=2, directions=4)
    assert check.passed, check
    assert (check.defense, check.pairs) == (name, 8)
    assert check.evaluations == factory(torch.float64).chain.evaluations
    assert check.full_difference.cosine == pytest.approx(1.0, abs=1e-9)
    # The approximations are told apart from gradients of f, except where they are exact.
    assert check.bpda.cosine is not None
    if name in ("none", "rrcm"):
        assert check.bpda.error == 0.0
    else:
        assert check.bpda.error > 0.1
    assert (check.surrogate is not None) == (
        name in ("ddpm", "reverse", "ddim", "vpsde", "densepure")
    )


def test_shipped_networks_pass_by_name_and_stay_as_they_were() -> None:
    from advpure.loading import load_denoiser

    network = load_denoiser("digits-edm")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    checks = check_gradients(["ddpm", "onestep-edm"], n=1, directions=2, t=4)
    assert [check.defense for check in checks] == ["ddpm", "onestep-edm"]
    assert [check.evaluations for check in checks] == [4, 1]
    assert all(check.passed for check in checks)
    after = load_denoiser("digits-edm").state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert {value.dtype for value in after.values() if value.is_floating_point()} == {torch.float32}


def _with_step(move: Move, gain: float | None = None, noisy: bool = False) -> PurifierFactory:
    """A purifier of three smooth steps with one of our own in the middle."""

    def smooth(x: Tensor, z: Tensor | None) -> Tensor:
        return x + 0.2 * torch.sin(2 * x)

    def chain() -> Chain:
        ends = [Step(name="s", phase="reverse", time=k, move=smooth) for k in (3, 1)]
        own = Step(name="own", phase="reverse", time=2, move=move, gain=gain, noisy=noisy)
        return Chain([ends[0], own, ends[1]])

    return lambda dtype: Purifier("own", chain())


class _Scaled(torch.autograd.Function):
    """The identity with a gradient that is four times too small."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient / 4


class _StraightThrough(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (8 * x).round() / 8

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def _one(factory: PurifierFactory) -> GradientCheck:
    return check_gradients(factory, n=2, directions=6)[0]


def test_an_honest_step_of_our_own_passes() -> None:
    assert _one(_with_step(lambda x, z: 0.5 * x, gain=0.5)).passed
    assert _one(_with_step(lambda x, z: x + 0.1 * z, noisy=True)).passed


def test_a_detached_part_is_caught() -> None:
    check = _one(_with_step(lambda x, z: 0.5 * x + 0.5 * x.detach()))
    assert not check.passed
    assert check.checkpoint.error == 0.0  # both modes share the fault; only differences see it
    assert check.full_difference.error == pytest.approx(0.5, abs=0.01)
    assert check.checkpoint_difference.error == pytest.approx(0.5, abs=0.01)


def test_a_detached_whole_is_caught() -> None:
    check = _one(_with_step(lambda x, z: x.detach()))
    assert not check.passed
    assert check.full_difference.error == 1.0
    assert check.full_difference.cosine is None


def test_a_purifier_without_a_slope_is_exact_but_blind() -> None:
    check = _one(_with_step(lambda x, z: (8 * x).round() / 8))
    assert (check.passed, check.blind, check.pairs) == (True, 12, 12)
    assert _one(_with_step(lambda x, z: 0.5 * x)).blind == 0
    between = 0.98 * to_model(load_images("digits", n=2).images).sum().item() / 2

    def darken(x: Tensor, z: Tensor | None) -> Tensor:
        return x * (x.sum((1, 2, 3), keepdim=True) > between)

    step = Step(name="darken", phase="reverse", time=1, move=darken)
    assert _one(lambda dtype: Purifier("half", Chain([step]))).blind == 6


def test_options_strength_and_weights_reach_the_purifier() -> None:
    plain = check_gradients("cm", n=1, directions=1)[0]
    steps = check_gradients("cm", n=1, directions=1, options={"steps": "3"}, sigma=0.1)[0]
    assert (plain.evaluations, steps.evaluations) == (1, 3)
    assert steps.passed
    with pytest.raises(BadInput, match="option 'stepz' of cm is not known; did you mean steps"):
        check_gradients("cm", options={"stepz": 3})
    with pytest.raises(BadInput, match=r"t 5 and sigma 0\.2 are two strengths"):
        check_gradients("onestep-edm", t=5, sigma=0.2)
    with pytest.raises(BadInput, match="is not shipped"):
        check_gradients("cm", weights="nowhere")
    assert check_gradients("none", n=1, directions=1, weights="nowhere", sigma=0.2)[0].passed


@pytest.mark.parametrize(
    ("move", "code", "words"),
    [
        (lambda x, z: 0.5 * x, 0, ["all gradients are exact\n", "ok"]),
        (
            lambda x, z: (8 * x).round() / 8, 0,
            ["all gradients are exact, but some are zero", "exact but blind", "in 4 of 4 pairs"],
        ),
        (lambda x, z: x.detach(), 1, ["a gradient is WRONG", "BROKEN", "the graph is cut"]),
    ],
)  # fmt: skip
def test_the_command_says_exact_blind_or_wrong(
    move: Move,
    code: int,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(Recipe):
        """One step of our own."""

        network: ClassVar[str | None] = None

        def chain(self, denoiser: Denoiser | None) -> Chain:
            """Lay it out."""
            return Chain([Step(name="own", phase="reverse", time=1, move=move)])

    monkeypatch.setitem(PURIFIERS._entries, "own", _Entry(Own, "our own"))
    line = ["check-grad", "-d", "own", "-n", "2", "--directions", "2", "--out", str(tmp_path)]
    assert run(line) == code
    out = capsys.readouterr().out
    assert [word for word in words if word not in out] == [], out
    assert ("ckpt/full differs" in out) == (code == 1)
    assert run([*line, "--json"]) == code, "the records say the same"
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] == (code == 0)
    assert told["checks"][0]["passed"] == told["passed"]


def test_records_give_the_checks_back_and_changed_code_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = CheckGrad(dataset="digits", defense=("ddim", "none"), n=1, directions=2, t=4)
    report = study.run(out=tmp_path)
    expected = check_gradients(["ddim", "none"], "digits", n=1, directions=2, t=4)
    assert list(report.checks) == expected
    assert report.exit_code == 0
    monkeypatch.setattr(
        "advpure.analysis.check_grad.study.source_digests", lambda *things: {"chain": "changed"}
    )
    with pytest.raises(BadInput, match="differs from"):
        study.run(out=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "cuda"}, "device 'cuda' means nothing here"),
        ({"subset": "train"}, "subset 'train' means nothing here"),
        ({"tile": 8}, "tile 8 means nothing here"),
        ({"n": 0}, "n 0"),
        ({"defense": ("ddpn",)}, "did you mean ddpm"),
        ({"options": {"stepz": 3}}, "option 'stepz' of none is not known"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        CheckGrad(**{"dataset": "digits", "defense": ("none",), **change}).load()


def test_the_cost_is_the_most_that_kinks_ask_for() -> None:
    study = CheckGrad(dataset="digits", defense=("ddim",), n=2, directions=3, t=4)
    cost = study.cost(study.load())
    # Six gradients of two images; four differences at each of four step sizes, three directions.
    assert cost.backwards == 2 * 6
    assert cost.evaluations == 2 * 4 * (6 + 4 * 4 * 3)


def test_a_gradient_four_times_too_small_is_caught_although_its_direction_is_right() -> None:
    check = _one(_with_step(lambda x, z: _Scaled.apply(x)))
    assert not check.passed
    assert check.full_difference.cosine == pytest.approx(1.0)
    assert check.full_difference.error == pytest.approx(0.75, abs=1e-6)


def test_a_wrong_gain_is_caught_in_checkpoint_alone() -> None:
    check = _one(_with_step(lambda x, z: 0.5 * x, gain=0.6))
    assert not check.passed
    assert check.full_difference.error < 1e-6
    assert check.checkpoint.error == pytest.approx(0.2)
    assert check.checkpoint_difference.error == pytest.approx(0.2, abs=1e-6)


def test_noise_that_is_not_replayed_is_caught() -> None:
    def factory(dtype: torch.dtype) -> Purifier:
        calls = itertools.count()

        def move(x: Tensor, z: Tensor | None) -> Tensor:
            generator = torch.Generator().manual_seed(next(calls))
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            return x + 0.3 * noise * x

        return _with_step(move)(dtype)

    check = _one(factory)
    assert not check.passed
    assert check.checkpoint.error > 0.01
    assert check.kinks > 0  # and its values change from call to call


def test_a_straight_through_gradient_is_caught() -> None:
    check = _one(_with_step(lambda x, z: _StraightThrough.apply(x)))
    assert not check.passed


def test_clipping_is_differentiated_where_it_has_a_derivative() -> None:
    # Half of the pixels of digits are 0, so clipping at -1 is active all over the image.
    check = _one(_with_step(lambda x, z: (1.4 * x).clamp(-1, 1)))
    assert check.passed
    assert check.full_difference.error < 1e-6


def test_pairs_at_a_kink_are_counted_and_left_out() -> None:
    # 2000 teeth per unit: every step size of the ladder but the last meets some of them.
    def saw(x: Tensor, z: Tensor | None) -> Tensor:
        return (2000 * x - (2000 * x).round()).abs() / 2000

    def rare(x: Tensor, z: Tensor | None) -> Tensor:
        teeth = torch.zeros_like(x)
        teeth[..., :1, :2] = 1.0
        return x + teeth * (saw(x, z) - x)

    many, few = _one(_with_step(saw)), _one(_with_step(rare))
    assert 0 <= few.kinks <= many.kinks
    assert few.passed
    assert few.full_difference.error < 1e-6


def test_bounds_decide() -> None:
    factory = _with_step(lambda x, z: 0.5 * x)
    strict = Bounds(checkpoint=0.0, checkpoint_float32=0.0, difference=1e-30)
    checks = [check_gradients(factory, n=1, directions=2, bounds=b)[0] for b in (Bounds(), strict)]
    assert [check.passed for check in checks] == [True, False]


def test_randomness_is_keyed_and_leaves_the_global_state_alone(toy_denoiser: MakeDenoiser) -> None:
    factory = _built("onestep-edm", toy_denoiser)
    state = torch.get_rng_state()
    first, second = (check_gradients(factory, n=1, directions=2) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("settings", [{"n": 0}, {"directions": 0}, {"n": 10**6}])
def test_nothing_to_check_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        check_gradients("none", **settings)  # type: ignore[arg-type]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean ddpm"):
        check_gradients("ddpn")
