"""A purifier's algorithm: a chain of steps x_k -> x_{k+1} on states in model units.

Each step says in which phase and at which time it runs, whether it consumes noise and how many
network evaluations it costs. From that follow, written once: exact gradients
(`advpure.core.gradients`), trajectories, composition and cutting of chains, and the cost of a run
before it starts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, overload

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.units import to_model, to_unit
from advpure.core.meter import tick
from advpure.core.randomness import Phase, RandomnessConfig

Move = Callable[[Tensor, Any], Tensor]
RowKeys = tuple[tuple[RandomnessConfig, int], ...]
"""Of every row, the configuration and the sample id that its randomness is keyed by."""


@dataclass(frozen=True, kw_only=True)
class NoiseForm:
    """A step written as kappa (x - gamma epsilon(x)) + noise, with noise that ignores the state.

    Its derivative is kappa (I - gamma J), J that of epsilon.

    Attributes:
        kappa: Factor of the state.
        gamma: Share of the predicted noise that is taken away, in the units of the state.
        epsilon: The noise prediction at a state, [B, C, H, W] to [B, C, H, W]; rows are
            independent.

    Source: [Wei2025], equation 4 and appendix A.3.
    """

    kappa: float
    gamma: float
    epsilon: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One map x_k -> x_{k+1}.

    Attributes:
        name: What it does, for trajectories and error messages.
        phase: ``forward`` adds noise, ``reverse`` removes it.
        time: The time that keys its noise; the papers' t for discrete schedules.
        move: The map, from a state [B, C, H, W] and standard normal noise of the same shape (None
            unless `noisy`) to the next state. Rows are independent.
        noisy: Whether it consumes noise.
        evaluations: Network evaluations per image.
        scale: The factor on the clean image in the state after the step (sqrt abar; 1 for
            variance-exploding states).
        sigma: The noise level after the step in model units, of the state divided by `scale`.
        gain: The derivative, for a step that is a scalar times the state plus noise; else None.
        stream: Keeps apart steps of composed chains that share phase and time.
        form: The same map through one noise prediction, for a step that can be written so; else
            None.
        keyed: Whether `move` takes the keys of the rows, `RowKeys`, instead of normal noise.
        images: The same map on images in [0, 1], for a step that is made for them: a chain of it
            alone does not convert them, which would round.

    Raises:
        BadInput: for an unknown phase.
    """

    name: str
    phase: Phase
    time: int
    move: Move
    noisy: bool = False
    evaluations: int = 0
    scale: float = 1.0
    sigma: float = 0.0
    gain: float | None = None
    stream: int = 0
    form: NoiseForm | None = None
    keyed: bool = False
    images: Move | None = None

    def __post_init__(self) -> None:
        """Check the phase."""
        if self.phase not in get_args(Phase):
            raise BadInput(
                f"phase {self.phase!r} of step {self.name!r}",
                "is not known",
                "use forward (before denoising) or reverse",
            )

    @property
    def key(self) -> tuple[int, Phase, int]:
        """What its noise is keyed by, beside the sample and the configuration."""
        return self.stream, self.phase, self.time


@dataclass(frozen=True)
class Noise:
    """The noise of one batch: a randomness configuration and the ids of the rows.

    Attributes:
        xi: The configuration; None for purifiers that need none.
        ids: Sample id of every row, [B].
        draw: Repetition of the forward noise.
        reverse_draw: Repetition of the reverse noise, the same as `draw` unless given.
    """

    xi: RandomnessConfig | None
    ids: Tensor | None
    draw: int = 0
    reverse_draw: int | None = None

    def of(self, step: Step, like: Tensor) -> Any:
        """Return the step's noise for every row, in the dtype and on the device of the state.

        A step asks once when it is run, so its network evaluations are counted here.

        That is a tensor, None for a step without noise, and `RowKeys` for a keyed one.
        """
        tick(step.evaluations * like.shape[0])
        if not step.noisy:
            return None
        if step.keyed:
            return self.keys(step, like.shape[0])
        xi, ids = self._source(step, like.shape[0])
        draw = self.repetition(step)
        return xi.normal(ids, step.phase, step.time, like.shape[1:], draw).to(like)

    def keys(self, step: Step, count: int) -> RowKeys:
        """Return what the randomness of each of `count` rows is keyed by, at a step."""
        xi, ids = self._source(step, count)
        draw = self.repetition(step)
        own = xi.fold("draw", draw) if draw else xi
        return tuple((own, 0 if own.scope == "shared" else i) for i in ids.tolist())

    def _source(self, step: Step, count: int) -> tuple[RandomnessConfig, Tensor]:
        """Return the configuration of a step and the ids of the rows."""
        if self.xi is None:
            raise BadInput(
                f"step {step.name!r} of a random purifier",
                "has no randomness configuration",
                "pass xi=RandomnessConfig(0)",
            )
        xi = self.xi.fold("stream", step.stream) if step.stream else self.xi
        if self.ids is not None:
            return xi, self.ids
        if xi.scope == "sample":
            raise BadInput(
                "a batch of images",
                "has no sample ids, which its noise is keyed by",
                "call bind(ids), or use RandomnessConfig(seed, scope='shared')",
            )
        return xi, torch.zeros(count, dtype=torch.int64, device="cpu")

    def repetition(self, step: Step) -> int:
        """Return which repetition of a step's noise is drawn."""
        if step.phase == "reverse" and self.reverse_draw is not None:
            return self.reverse_draw
        return self.draw


class Chain(Sequence[Step]):
    """An immutable sequence of steps; slices are chains, and chains add up.

    Example:
        >>> half = Step(name="halve", phase="reverse", time=1, move=lambda x, z: x / 2, gain=0.5)
        >>> chain = Chain([half]) + Chain([half])
        >>> chain.run(torch.ones(1, 1, 1, 1), Noise(None, None)).item(), len(chain[:1])
        (0.25, 1)
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        """Take the steps, refusing two that would draw the same noise."""
        self.steps = tuple(steps)
        keys = [step.key for step in self.steps if step.noisy]
        if len(set(keys)) != len(keys):
            raise BadInput("a chain", "draws the same noise twice", "give one step another time")

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> "Chain": ...
    def __getitem__(self, index: int | slice) -> "Step | Chain":
        """Return one step, or the chain cut to a slice."""
        return Chain(self.steps[index]) if isinstance(index, slice) else self.steps[index]

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.steps)

    def __add__(self, other: "Chain") -> "Chain":
        """Compose: run this chain, then the other, whose noise stays independent of this one's."""
        shift = 1 + max((step.stream for step in self.steps), default=-1)
        moved = [replace(step, stream=step.stream + shift) for step in other.steps]
        return Chain(self.steps + tuple(moved))

    @property
    def evaluations(self) -> int:
        """Network evaluations per image, counted without running."""
        return sum(step.evaluations for step in self.steps)

    @property
    def draws(self) -> int:
        """Noise draws per image."""
        return sum(step.noisy for step in self.steps)

    @property
    def is_random(self) -> bool:
        """Whether any step consumes noise."""
        return any(step.noisy for step in self.steps)

    @property
    def on_images(self) -> "Chain | None":
        """The chain on images in [0, 1], where it is one step that is made for them."""
        step = self.steps[0] if len(self.steps) == 1 else None
        if step is None or step.images is None:
            return None
        return Chain([replace(step, move=step.images, images=None)])

    def purify(self, images: Tensor, noise: Noise) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] units through all steps, with plain autograd."""
        own = self.on_images
        return to_unit(self.run(to_model(images), noise)) if own is None else own.run(images, noise)

    def run(self, x: Tensor, noise: Noise) -> Tensor:
        """Map a state [B, C, H, W] in model units through all steps, with plain autograd."""
        for step in self.steps:
            x = step.move(x, noise.of(step, x))
        return x

    def states(self, x: Tensor, noise: Noise) -> Iterator[tuple[Step, Tensor]]:
        """Yield every step with the state after it: the trajectory of a purification."""
        for step in self.steps:
            x = step.move(x, noise.of(step, x))
            yield step, x
