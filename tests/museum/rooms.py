"""What stands in the museum: images, classifiers, purifiers and attacks, by name.

The images are 4 x 4 pixels, grey but for a shift by t along fixed signs s, towards the class, and
some noise across s. The classifier is the sign of s . (x - 1/2). Under linf it is robust at an
image exactly if t > eps, whatever stands in front of it and keeps s . x.
"""

import functools
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from advpure.attacks.oracle import Oracle, check_batch
from advpure.attacks.outcome import AttackResult
from advpure.attacks.projected import PGDSettings, pgd
from advpure.attacks.settings import AttackSettings, Passes, resolve
from advpure.base.units import to_model, to_unit
from advpure.core.chain import Chain, Step
from advpure.core.randomness import RandomnessConfig
from advpure.loading.denoisers import load_denoiser

SIDE, EPS, COUNT = 4, 0.1, 24
_PEN = np.random.default_rng(3)
SIGNS = torch.tensor(np.where(_PEN.random((1, SIDE, SIDE)) < 0.5, -1.0, 1.0), dtype=torch.float32)
SHIFTS = torch.linspace(0.03, 0.2, COUNT)


def across(noise: Tensor) -> Tensor:
    """Return noise [B, 1, 4, 4] without its part along the signs."""
    along = (noise * SIGNS).mean((1, 2, 3), keepdim=True)
    return noise - along * SIGNS


def points() -> tuple[Tensor, Tensor]:
    """Return the images and their labels."""
    pen = np.random.default_rng(5)
    labels = torch.tensor(np.arange(COUNT) % 2)
    order = torch.tensor(pen.permutation(COUNT))
    noise = torch.tensor(pen.uniform(-0.1, 0.1, (COUNT, 1, SIDE, SIDE)), dtype=torch.float32)
    side = (2.0 * labels - 1).reshape(-1, 1, 1, 1)
    images = 0.5 + side * SHIFTS[order].reshape(-1, 1, 1, 1) * SIGNS + across(noise)
    return images, labels


def shifted() -> tuple[Tensor, Tensor]:
    """Return the images, with labels that count one too far."""
    images, labels = points()
    return images, labels + 1


def doubled() -> tuple[Tensor, Tensor]:
    """Return the images of the first half twice."""
    images, labels = points()
    half = COUNT // 2
    return torch.cat([images[:half]] * 2), torch.cat([labels[:half]] * 2)


def bright() -> tuple[Tensor, Tensor]:
    """Return images whose shift is the same and close to the border for all."""
    images, labels = points()
    side = (2.0 * labels - 1).reshape(-1, 1, 1, 1)
    own = ((images - 0.5) * SIGNS).mean((1, 2, 3), keepdim=True)
    return images - own * SIGNS + side * 0.06 * SIGNS, labels


def one_class() -> tuple[Tensor, Tensor]:
    """Return the images of the second class alone, in two sets of noise."""
    images, labels = points()
    own = images[labels == 1]
    turned = own + across((own - 0.5).flip(-1)) - across(own - 0.5)
    return torch.cat([own, turned]), torch.ones(COUNT, dtype=torch.int64)


def nearly_doubled() -> tuple[Tensor, Tensor]:
    """Return the images of the first half twice, the second time with noise that nobody sees."""
    images, labels = doubled()
    pen = torch.Generator().manual_seed(1)
    return images + 0.002 * (torch.rand(images.shape, generator=pen) - 0.5), labels


def easy_first() -> tuple[Tensor, Tensor]:
    """Return images with large shifts, and behind them those with the usual ones."""
    images, labels = points()
    side = (2.0 * labels - 1).reshape(-1, 1, 1, 1)
    return torch.cat([images + 0.1 * side * SIGNS, images]), torch.cat([labels] * 2)


def score(images: Tensor) -> Tensor:
    """Return the mean of the shift towards class 1, [B], 1 at the radius."""
    return ((images - 0.5) * SIGNS).mean((1, 2, 3)) / EPS


def two(value: Tensor) -> Tensor:
    """Return logits of three classes, the last of which is never meant."""
    return torch.stack([-value, value, value * 0 - 20], dim=1)


class Linear(nn.Module):
    """The sign of the shift."""

    factor = 3.0

    def forward(self, images: Tensor) -> Tensor:
        return two(self.factor * score(images))


def linear() -> nn.Module:
    """Return the classifier."""
    return Linear().eval()


def flat() -> nn.Module:
    """Return the classifier as one layer, whose features are the pixels."""
    layer = nn.Linear(SIDE * SIDE, 3)
    row = 3 * SIGNS.flatten() / (SIDE * SIDE * EPS)
    with torch.no_grad():  # weights are set, not trained
        layer.weight.copy_(torch.stack([-row, row, 0 * row]))
        layer.bias.copy_(torch.stack([row.sum() / 2, -row.sum() / 2, -20 + 0 * row[0]]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def sharp() -> nn.Module:
    """Return the classifier with logits a thousand times as large."""
    model = Linear()
    model.factor = 3000.0
    return model.eval()


def probabilities() -> nn.Module:
    """Return the classifier behind a softmax."""
    return nn.Sequential(Linear(), nn.Softmax(dim=1)).eval()


class Masked(nn.Module):
    """The classifier behind dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, images: Tensor) -> Tensor:
        return two(3 * score(0.5 + self.drop(images - 0.5)))


def training() -> nn.Module:
    """Return a classifier in training mode."""
    return Masked().train()


class Normalised(nn.Module):
    """The classifier behind batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        return two(score(0.5 + 0.1 * self.norm(images)))


def batch_statistics() -> nn.Module:
    """Return a classifier that normalises by the statistics of the batch."""
    return Normalised().train()


class Counting(nn.Module):
    """A classifier that keeps a running mean of what it saw."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            self.seen += 0.01 * images.mean()
        return two(3 * score(images) + 0 * self.seen)


def counting() -> nn.Module:
    """Return it."""
    return Counting().eval()


class AmongOthers(nn.Module):
    """A classifier that compares an image with the mean of its batch."""

    def forward(self, images: Tensor) -> Tensor:
        value = score(images)
        return two(3 * (value - 0.5 * value.mean()))


def among_others() -> nn.Module:
    """Return it."""
    return AmongOthers().eval()


class Turning(nn.Module):
    """A classifier whose gradient turns round close to the border."""

    def forward(self, images: Tensor) -> Tensor:
        value = 3 * score(images)
        is_close = value.abs() < 0.6
        return two(torch.where(is_close, 2 * value.detach() - value, value))


def turning_back() -> nn.Module:
    """Return it."""
    return Turning().eval()


def whole(images: Tensor) -> Tensor:
    """Answer as one function from images to logits."""
    return two(3 * score(pull(images)))


def whole_noisy(images: Tensor) -> Tensor:
    """Answer as one function that draws from torch's generator."""
    return two(3 * score(pull(images + 0.05 * torch.randn_like(images))))


class Trap(nn.Module):
    """A border behind a ridge: from the images themselves the gradient leads to the wrong side.

    Beside the shift there is a direction u, checkered, along which the images have 0.05 of the
    radius on the wrong side. There the loss rises towards a dead end, on the other side to success.
    """

    def forward(self, images: Tensor) -> Tensor:
        along = ((images - 0.5) * CHECKERED).mean((1, 2, 3)) / EPS
        gain = torch.where(along < 0, -0.6 * along, 1.6 * along)
        value = score(images)
        side = torch.sign(value.detach())
        return two(side * (1.0 - gain) * 3)


CHECKERED = SIGNS * torch.tensor(
    [[(-1.0) ** (row + column) for column in range(SIDE)] for row in range(SIDE)]
).unsqueeze(0)
CHECKERED = CHECKERED - (CHECKERED * SIGNS).mean() * SIGNS
CHECKERED = torch.sign(CHECKERED)


def trap() -> nn.Module:
    """Return it."""
    return Trap().eval()


def trapped() -> tuple[Tensor, Tensor]:
    """Return images that stand on the wrong side of the ridge."""
    images, labels = points()
    own = ((images - 0.5) * CHECKERED).mean((1, 2, 3), keepdim=True)
    side = (2.0 * labels - 1).reshape(-1, 1, 1, 1)
    moved = images - (own + 0.05 * EPS) * CHECKERED
    back = ((moved - 0.5) * SIGNS).mean((1, 2, 3), keepdim=True)
    return moved + (side * 0.15 - back) * SIGNS * 0 + side * 0.0, labels


class Valley(nn.Module):
    """A classifier that is fooled in a band only, which large steps pass through."""

    def forward(self, images: Tensor) -> Tensor:
        value = score(images)
        side = torch.sign(value)
        depth = (value.abs() - 0.3).abs()
        return two(side * (depth - 0.1) * 3)


def valley() -> nn.Module:
    """Return it."""
    return Valley().eval()


class _Straight(torch.autograd.Function):
    """Any map whose backward pass is another map's."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, forward: Any, backward: Any) -> Tensor:
        ctx.backward_map = backward
        ctx.save_for_backward(images)
        return forward(images.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (images,) = ctx.saved_tensors
        with torch.enable_grad():
            x = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(ctx.backward_map(x), x, gradients[0])
        return gradient, None, None


class Purifier(nn.Module):
    """A purifier from a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def same() -> nn.Module:
    """Return a purifier that does nothing."""
    return Purifier(lambda x: x * 1.0)


def rounding() -> nn.Module:
    """Return 64 grey levels."""
    return Purifier(lambda x: torch.round(x * 64) / 64)


def _dct() -> Tensor:
    rows = torch.arange(SIDE).float()
    basis = torch.cos(torch.pi * (rows[:, None]) * (2 * rows[None, :] + 1) / (2 * SIDE))
    basis[0] /= 2**0.5
    return basis * (2 / SIDE) ** 0.5


def jpeg() -> nn.Module:
    """Return rounded cosine coefficients, beside a faint straight path."""
    basis = _dct()

    def squeeze(x: Tensor) -> Tensor:
        coefficients = basis @ x @ basis.T
        rounded = torch.round(coefficients * 40) / 40
        return (basis.T @ rounded @ basis).clamp(0, 1) * 0.99 + 0.01 * x

    return Purifier(squeeze)


def ripple() -> nn.Module:
    """Return a fast wave on every pixel, small in size and large in slope."""
    return Purifier(lambda x: x + 0.004 * torch.sin(1500 * x))


def permuted() -> nn.Module:
    """Return the pixels turned over, and their difference from grey turned over twice."""
    return Purifier(_permute)


def turning() -> nn.Module:
    """Return the pixels turned over, for a classifier that turns them back."""
    return Purifier(lambda x: x.flip(-1, -2))


class Turned(nn.Module):
    """The classifier of images that were turned over."""

    def forward(self, images: Tensor) -> Tensor:
        return two(3 * score(images.flip(-1, -2)))


def turned() -> nn.Module:
    """Return it."""
    return Turned().eval()


def _permute(x: Tensor) -> Tensor:
    return 0.5 + (((x - 0.5) * SIGNS).flip(-1, -2) * SIGNS)


def _flow(x: Tensor, steps: int, speed: float = 2.0) -> Tensor:
    for _ in range(steps):
        x = x - speed / steps * 0.1 * torch.sin(8 * torch.pi * (x - 0.5))
    return x


def flow() -> nn.Module:
    """Return twenty steps of a flow towards grey levels."""
    return Purifier(lambda x: _flow(x, 20))


def drifting() -> nn.Module:
    """Return the flow, whose backward pass follows states that were integrated backwards."""

    def adjoint(x: Tensor) -> Tensor:
        state = _flow(x.detach(), 20)
        for _ in range(4):
            state = state + 0.5 * 0.1 * torch.sin(8 * torch.pi * (state - 0.5))
        return _flow(state + (x - x.detach()), 4)

    return Purifier(lambda x: _Straight.apply(x, lambda z: _flow(z, 20), adjoint))


class Integrated(nn.Module):
    """The probability-flow equation of a shipped denoiser, by Euler's method from the image on.

    Args:
        is_adjoint: Whether the gradient is that of an adjoint equation, whose states are found
            again by integrating backwards, and not that of the steps that were taken. The
            steps are long, so that what is found again is another state.
    """

    levels = (1.5, 0.3, 0.05, 0.01)

    def __init__(self, is_adjoint: bool) -> None:
        super().__init__()
        self.denoiser, self.is_adjoint = load_denoiser("digits-edm"), is_adjoint
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        if not self.is_adjoint:
            return self.flow(images)
        return _Straight.apply(images, self.flow, self.adjoint)

    def step(self, state: Tensor, level: float, other: float) -> Tensor:
        """Return the state at another level, by the slope at this one."""
        return state + (other - level) * (state - self.denoiser(state, level)) / level

    def flow(self, images: Tensor) -> Tensor:
        """Return the state at the last level, in [0, 1] units."""
        state = to_model(images)
        for level, below in pairwise(self.levels):
            state = self.step(state, level, below)
        return to_unit(state)

    def adjoint(self, images: Tensor) -> Tensor:
        """Return nothing but a derivative: that of the steps at states that were found again."""
        found = [to_model(self.flow(images.detach())).detach()]
        for level, above in pairwise(reversed(self.levels)):
            found.append(self.step(found[-1], level, above).detach())
        change = to_model(images) - to_model(images).detach()
        for state, (level, below) in zip(reversed(found), pairwise(self.levels), strict=False):
            at = self.step(state + change, level, below)
            change = at - at.detach()
        return to_unit(change)


def adjoint() -> nn.Module:
    """Return it with the gradient of the adjoint equation."""
    return Integrated(is_adjoint=True)


def integrated() -> nn.Module:
    """Return it with the exact gradient."""
    return Integrated(is_adjoint=False)


def two_grids() -> nn.Module:
    """Return the flow, whose backward pass takes the states of a coarser grid."""

    def mixed(x: Tensor) -> Tensor:
        return _flow(_flow(x.detach(), 2) + (x - x.detach()), 20)

    return Purifier(lambda x: _Straight.apply(x, lambda z: _flow(z, 20), mixed))


class Surrogate(Purifier):
    """The flow of twenty steps with one of a single step for its derivative."""

    def __init__(self) -> None:
        super().__init__(lambda x: _flow(x, 20, 3.0))
        self.surrogate = lambda x: _flow(x, 1, 3.0)


def surrogate() -> nn.Module:
    """Return it."""
    return Surrogate()


def detached() -> nn.Module:
    """Return the flow with its second half cut off from the gradient."""

    def cut(x: Tensor) -> Tensor:
        half = _flow(x, 10)
        return half + (_flow(half, 10) - half).detach()

    return Purifier(cut)


def _five_steps(cut: int | None) -> Chain:
    """Return the flow of twenty steps as a chain of five, one of them cut off if asked."""

    def move(x: Tensor, is_cut: bool) -> Tensor:
        images = to_unit(x)
        moved = _flow(images, 4, 0.4)
        return to_model(images + (moved - images).detach() if is_cut else moved)

    return Chain(
        [
            Step(
                name="flow",
                phase="reverse",
                time=k,
                move=functools.partial(lambda x, z, is_cut: move(x, is_cut), is_cut=k == cut),
            )
            for k in range(5)
        ]
    )


def five_steps() -> Chain:
    """Return a sound chain."""
    return _five_steps(None)


def cut_step() -> Chain:
    """Return the chain whose third step lets no gradient through what it does."""
    return _five_steps(2)


def pull(images: Tensor) -> Tensor:
    """Return images pulled towards class prototypes, a soft denoiser."""
    value = ((images - 0.5) * SIGNS).mean((1, 2, 3), keepdim=True)
    return images + 0.2 * (0.1 * torch.tanh(value / 0.1) - value) * SIGNS


class Noisy:
    """Add keyed noise of a level, then pull."""

    def __init__(self, sigma: float = 0.05) -> None:
        self.sigma = sigma

    def noise(self, images: Tensor, ids: Tensor, randomness: RandomnessConfig) -> Tensor:
        drawn = randomness.normal(ids, "forward", 0, tuple(images.shape[1:]))
        return self.sigma * drawn.to(images)

    def __call__(self, images: Tensor, ids: Tensor, randomness: RandomnessConfig) -> Tensor:
        return pull(images + self.noise(images, ids, randomness))


def noisy() -> Noisy:
    """Return it."""
    return Noisy()


class Tossing(Noisy):
    """Add noise that is turned by an amount which hangs on every bit of the image."""

    def noise(self, images: Tensor, ids: Tensor, randomness: RandomnessConfig) -> Tensor:
        """Return the noise of every row, its pixels rolled by a hash of the image."""
        drawn = super().noise(images, ids, randomness).flatten(1)
        turns = (images.detach() * 9973).sum((1, 2, 3)).long() % drawn.shape[1]
        rolled = [row.roll(int(turn)) for row, turn in zip(drawn, turns, strict=True)]
        return torch.stack(rolled).reshape(images.shape)


def tossing() -> Tossing:
    """Return it with so much noise that decisions are tosses."""
    return Tossing(0.3)


class Unreplayed(Noisy):
    """Add large noise, squash, and take the derivative under other noise."""

    def __init__(self) -> None:
        super().__init__(0.3)

    def __call__(self, images: Tensor, ids: Tensor, randomness: RandomnessConfig) -> Tensor:
        mine, other = (
            self.noise(images, ids, each) for each in (randomness, randomness.fold("other"))
        )

        def squash(x: Tensor, noise: Tensor) -> Tensor:
            return 0.5 + 0.15 * torch.tanh(6 * (x + noise - 0.5)) - 0.15 * torch.tanh(6 * noise)

        return _Straight.apply(images, lambda x: squash(x, mine), lambda x: squash(x, other))


def unreplayed() -> Unreplayed:
    """Return it."""
    return Unreplayed()


class Uniform(nn.Module):
    """Add noise of a stated sigma that is uniform."""

    def __init__(self) -> None:
        super().__init__()
        self.sigma = 0.05
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        return pull(images + self.sigma * torch.rand_like(images))


def uniform() -> nn.Module:
    """Return it."""
    return Uniform()


def gaussian() -> nn.Module:
    """Return noise of a stated sigma that is normal."""
    model = Uniform()
    model.forward = lambda x: pull(x + model.sigma * torch.randn_like(x))  # type: ignore[method-assign]
    return model


class Remembering(nn.Module):
    """Answer with what was asked first in the neighbourhood, beside a part of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Tensor] = []
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([0.2 * image + 0.8 * self._first(image) for image in images])

    def _first(self, image: Tensor) -> Tensor:
        """Return the first image that was asked within two radii, which may be this one."""
        seen = image.detach().clone()
        for known in self.known:
            if float((known - seen).abs().max()) < 2.5 * EPS:
                return known
        self.known.append(seen)
        return seen


def remembering() -> nn.Module:
    """Return it."""
    return Remembering()


def looked_up(images: Tensor, ids: Tensor, randomness: RandomnessConfig) -> Tensor:
    """Return the clean image of the number, beside a part of the image."""
    return 0.2 * images + 0.8 * points()[0][ids % COUNT]


def projecting() -> nn.Module:
    """Return a soft projection onto the images of the test."""
    known = points()[0].flatten(1)

    def project(x: Tensor) -> Tensor:
        far = torch.cdist(x.flatten(1), known).square()
        return ((-far / 0.01).softmax(1) @ known).reshape(x.shape)

    return Purifier(project)


def by_the_clock() -> nn.Module:
    """Return a purifier whose noise is seeded by the clock."""

    def add(x: Tensor) -> Tensor:
        pen = torch.Generator().manual_seed(time.time_ns() % 2**40)
        return x + 0.1 * torch.randn(x.shape, generator=pen)

    return Purifier(add)


def by_the_hour() -> nn.Module:
    """Return a purifier that moves images by the hour of the day."""
    return Purifier(lambda x: x + 0.02 * (time.time() // 3600 % 24) / 24 * SIGNS)


def recognising() -> nn.Module:
    """Return a purifier that passes images of the test by their very bytes, and blurs others."""
    known = {image.numpy().tobytes() for image in points()[0]}

    def pass_(x: Tensor) -> Tensor:
        is_known = [image.detach().numpy().tobytes() in known for image in x]
        kept = torch.tensor(is_known).reshape(-1, 1, 1, 1)
        return torch.where(kept, x, 0.5 + 0.3 * (x - 0.5))

    return Purifier(pass_)


def two_faced() -> nn.Module:
    """Return a purifier that shows another function where a gradient is wanted."""
    return Purifier(lambda x: x + 0.05 * SIGNS if x.requires_grad else x * 1.0)


def seeding() -> nn.Module:
    """Return a purifier that sets its own seed before it draws."""

    def add(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return pull(x + 0.05 * torch.randn_like(x))

    return Purifier(add)


def optimising() -> nn.Module:
    """Return a purifier that descends on its own loss while it answers."""

    def descend(images: Tensor) -> Tensor:
        moved = torch.zeros_like(images)
        for _ in range(3):
            with torch.enable_grad():
                free = moved.detach().requires_grad_()
                loss = (functional.avg_pool2d(images.detach() + free, 2) - 0.5).square().sum()
                (gradient,) = torch.autograd.grad(loss, free)
            moved = moved - 0.01 * gradient
        return images + moved

    return Purifier(descend)


def blurred() -> nn.Module:
    """Return a mild low-pass filter along the signs."""
    kernel = torch.tensor([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]])

    def filter_(x: Tensor) -> Tensor:
        shown = (x - 0.5) * SIGNS
        return 0.5 + SIGNS * functional.conv2d(
            functional.pad(shown, (1, 1, 1, 1), mode="replicate"), kernel[None, None]
        )

    return Purifier(filter_)


@dataclass(frozen=True, kw_only=True)
class BrokenSettings(PGDSettings):
    """Settings of attacks with a fault.

    Args:
        fault: Which.
    """

    fault: Literal["projection", "box", "sign", "scale", "corner", "skipped", "none"] = "none"


def broken(
    model: Any,
    images: Tensor,
    labels: Tensor,
    settings: BrokenSettings | None = None,
    *,
    ids: Any = None,
    **overrides: Any,
) -> AttackResult:
    """Run PGD whose result is spoilt as a faulty program would."""
    chosen = resolve(BrokenSettings, settings, overrides)
    plain = {k: v for k, v in vars(chosen).items() if k != "fault"}
    result = pgd(model, images, labels, PGDSettings(**plain), ids=ids)
    moved = result.images - images
    if chosen.fault == "projection":
        size = moved.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, 1, 1, 1)
        moved = moved / size * 1e-10
    elif chosen.fault == "box":
        moved = (images + moved).clamp(0.45, 0.55) - images
    elif chosen.fault == "sign":
        moved = -moved
    elif chosen.fault == "scale":
        moved = moved / 2
    elif chosen.fault == "corner":
        moved = moved.sign() * chosen.eps / moved[0].numel() ** 0.5
    elif chosen.fault == "skipped":
        moved = moved * (torch.arange(len(moved)) % 3 > 0).reshape(-1, 1, 1, 1)
    made = (images + moved).clamp(0, 1)
    batch = check_batch(model, images, labels, ids, chosen)
    verdict = Oracle(model, chosen).judge(made, batch.labels, batch.ids, 10**6)
    delta = (made - images).double()
    return AttackResult(
        **{
            **vars(result),
            "images": made,
            "success": verdict.success.cpu(),
            "loss": verdict.loss.cpu(),
            "linf": delta.abs().amax((1, 2, 3)),
            "l2": delta.flatten(1).norm(dim=1),
            "lost": torch.zeros_like(result.lost),
            "settings": chosen,
        }
    )


@dataclass(frozen=True, kw_only=True)
class PeekingSettings(AttackSettings):
    """Settings of a search that asks the very draws that decide.

    Args:
        candidates: Points of noise.
        draws: Decisions that it looks at.
    """

    candidates: int = 60
    draws: int = 5

    @property
    def most_passes(self) -> Passes:
        """Every candidate is decided in every draw."""
        return Passes(self.candidates * self.draws, 0)


def peeking(
    model: Any,
    images: Tensor,
    labels: Tensor,
    settings: PeekingSettings | None = None,
    *,
    ids: Any = None,
    **overrides: Any,
) -> AttackResult:
    """Keep of many points the one that fails in most of the draws that decide."""
    chosen = resolve(PeekingSettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    xi = RandomnessConfig(9, "counter")
    best, fewest = batch.images.clone(), torch.full((len(labels),), 10**6)
    views = [model.at(ids=batch.ids, xi=model.xi.fold("decision", k)) for k in range(chosen.draws)]
    for k in range(chosen.candidates):
        noise = 2 * xi.uniform(batch.ids, k, tuple(images.shape[1:])) - 1
        points = (batch.images + chosen.eps * noise).clamp(0, 1)
        with torch.no_grad():
            right = sum((view(points).argmax(1) == batch.labels).long() for view in views)
        better = right < fewest
        best[better], fewest = points[better], torch.minimum(fewest, right)
    delta = (best - batch.images).double()
    zero = torch.zeros(len(labels), dtype=torch.int64)
    return AttackResult(
        images=best,
        success=fewest == 0,
        loss=-fewest.float(),
        iterations=zero,
        forwards=zero + chosen.candidates * chosen.draws,
        backwards=zero,
        linf=delta.abs().amax((1, 2, 3)),
        l2=delta.flatten(1).norm(dim=1),
        zero_gradient=zero.bool(),
        lost=zero.bool(),
        settings=chosen,
    )
