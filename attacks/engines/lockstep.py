"""Other people's attacks on one image each, whose questions are answered together.

An attack library moves a batch: it drops rows, reorders them, asks about 9 of 16 images, and draws
its random numbers for the whole batch at once. A defense whose noise is keyed by image cannot be
asked that way, and the result would depend on the batch. So every image is attacked alone, with
generators of its own, in a thread of its own that waits whenever it asks; when all of them wait,
one batch answers. Which image a question is about is then known, whatever rows the library sends,
and an image's result has the same bits whatever other images are attacked beside it.

One thread runs at a time. The attacks take their turns in order, and the global generators of
torch, NumPy and Python are exchanged with the turn, so nothing depends on the scheduler. In round k
every attack asks its k-th question, so under fresh randomness the number of the round says which
draw is seen, as the step does in attacks of our own.

A point outside of [0, 1] is answered as the nearest one inside, with the gradient there.
"""

import contextvars
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from advpure.attacks.balls import distances
from advpure.attacks.losses import margin
from advpure.attacks.oracle import Batch, Oracle
from advpure.core.gradients import differentiating
from advpure.core.tiling import tiled

MOST_LANES = 64
"""Images attacked side by side, where the model has no tile."""
_REACH = 1e-6
"""Rounding by which a point may lie outside of its ball and count as inside."""


class Task(NamedTuple):
    """What a library is given of one image.

    Attributes:
        view: A module from images [R, C, H, W] to logits [R, classes]; every row is this image's.
        image: [1, C, H, W] in [0, 1], on the CPU.
        label: [1], int64.
        eps: Radius.
        norm: ``linf`` or ``l2``.
        seed: A seed of its own, below 2**31; the global generators are set already.
        classes: Number of classes.
    """

    view: nn.Module
    image: Tensor
    label: Tensor
    eps: float
    norm: str
    seed: int
    classes: int


class Finding(NamedTuple):
    """What a library returns for one image.

    Attributes:
        image: [1, C, H, W], as it was returned.
        fooled: What the library says of it; None where it says nothing.
    """

    image: Tensor
    fooled: bool | None = None


@dataclass
class Outcome:
    """What became of one image's attack.

    Attributes:
        image: [1, C, H, W] on the CPU: the library's, or the best point asked about where the
            budget ended the attack.
        fooled: Whether the library says that it fools; of an attack that was ended, whether the
            best point did when it was asked about.
        forwards: Rows that were evaluated.
        backwards: Rows whose gradient was taken.
        is_ended: Whether the budget ended the attack.
        is_found: Whether some point in the ball fooled when it was asked about.
        is_blind: Whether the first gradient was exactly zero; None where none was asked for.
    """

    image: Tensor
    fooled: bool
    forwards: int = 0
    backwards: int = 0
    is_ended: bool = False
    is_found: bool = False
    is_blind: bool | None = None


Job = Callable[[Task], Finding]


class _Stop(BaseException):
    """End an attack from inside one of its questions; no library catches it by accident."""


class Lockstep:
    """Attack the images of a batch, each alone, and answer what they ask together.

    Args:
        oracle: The model, with the threat model and the randomness.
        batch: The images; at most as many as fit into memory at once.
        sizes: Radius of every row [B].
        budget: Rows that may be evaluated for an image.
        classes: Number of classes.
        first: Number of the first round, which selects fresh randomness.
    """

    def __init__(
        self,
        oracle: Oracle,
        batch: Batch,
        sizes: Tensor,
        *,
        budget: int,
        classes: int,
        first: int = 1,
    ) -> None:
        """Keep the parts; nothing runs."""
        self._oracle, self._batch, self._sizes = oracle, batch, sizes
        self._budget, self._classes, self._round = budget, classes, first

    def run(self, job: Job, seeds: Sequence[int]) -> list[Outcome]:
        """Run a job for every row.

        Args:
            job: One attack on one image.
            seeds: A seed for each row, below 2**56.

        Returns:
            One outcome for each row, in order.

        Raises:
            Exception: what a job raised first.
        """
        back = threading.Semaphore(0)
        outer = _Generators.now()
        lanes = [
            _Lane(row, self._task(row, seed), self._budget, back, _Generators.seeded(seed), job)
            for row, seed in enumerate(seeds)
        ]
        try:
            going = lanes
            while going:
                for lane in going:
                    lane.turn()
                    if lane.failure is not None:
                        raise lane.failure
                going = [lane for lane in going if lane.question is not None]
                outer.put_back()
                self._answer([lane for lane in going if isinstance(lane.question, _Forward)])
                _pull(lanes=[lane for lane in going if isinstance(lane.question, _Backward)])
                self._round += 1
        finally:
            for lane in lanes:
                lane.close()
            outer.put_back()
        return [lane.outcome() for lane in lanes]

    def _task(self, row: int, seed: int) -> Task:
        return Task(
            view=nn.Identity(),
            image=self._batch.images[row : row + 1].cpu().clone(),
            label=self._batch.labels[row : row + 1].cpu().clone(),
            eps=float(self._sizes[row]),
            norm=self._oracle.settings.norm,
            seed=seed % 2**31,
            classes=self._classes,
        )

    def _answer(self, lanes: "Sequence[_Lane]") -> None:
        """Answer all questions about images, those that need a graph in one pass of their own."""
        for graph in (False, True):
            asking = [lane for lane in lanes if lane.asked.needs_graph == graph]
            if not asking:
                continue
            counts = [len(lane.asked.points) for lane in asking]
            points = torch.cat([lane.asked.points for lane in asking]).to(self._batch.images)
            rows = [
                lane.row for lane, count in zip(asking, counts, strict=True) for _ in range(count)
            ]
            joint = self._ask(points.clamp(0.0, 1.0), torch.tensor(rows, device="cpu"), graph)
            logits = joint.logits.detach().cpu()
            start = 0
            for lane, count in zip(asking, counts, strict=True):
                own = slice(start, start + count)
                lane.watch(logits[own])
                lane.reply = _Reply(logits[own], joint if graph else None, own)
                start += count

    def _ask(self, points: Tensor, rows: Tensor, graph: bool) -> "_Joint":
        labels, ids = self._batch.labels[rows], self._batch.ids[rows]
        if not graph:
            return _Joint(points, self._oracle.logits(points, labels, ids, self._round))
        with differentiating():
            points = points.detach().clone().requires_grad_()
            return _Joint(points, self._oracle.answer(points, labels, ids, self._round).decided)


class _Joint(NamedTuple):
    """Points of several attacks, and their logits with the graph between."""

    points: Tensor
    logits: Tensor


class _Forward(NamedTuple):
    """A question: the logits of points [R, C, H, W]."""

    points: Tensor
    needs_graph: bool


class _Backward(NamedTuple):
    """A question: the gradient of earlier logits, pulled back from that of the logits."""

    reply: "_Reply"
    gradient: Tensor


class _Reply(NamedTuple):
    """Logits [R, classes], and where they stand in the pass of all."""

    logits: Tensor
    joint: _Joint | None
    rows: slice


def _pull(lanes: "Sequence[_Lane]") -> None:
    """Take the gradients that are asked for, of all attacks that asked in one pass together."""
    joints: dict[int, list[_Lane]] = {}
    for lane in lanes:
        assert isinstance(lane.question, _Backward)
        joints.setdefault(id(lane.question.reply.joint), []).append(lane)
    for group in joints.values():
        asked = [lane.question for lane in group]
        joint = asked[0].reply.joint  # type: ignore[union-attr]
        assert isinstance(joint, _Joint)
        seen = torch.zeros_like(joint.logits)
        for each in asked:
            assert isinstance(each, _Backward)
            seen[each.reply.rows] = each.gradient.to(seen)
        gradient: Tensor | None = None
        if joint.logits.requires_grad:
            # Kept, for a library may pull back several classes of one answer.
            (gradient,) = torch.autograd.grad(
                joint.logits, joint.points, seen, retain_graph=True, allow_unused=True
            )
        for lane, each in zip(group, asked, strict=True):
            assert isinstance(each, _Backward)
            rows = joint.points.detach()[each.reply.rows]
            lane.pulled = torch.zeros_like(rows) if gradient is None else gradient[each.reply.rows]
            lane.pulled = lane.pulled.cpu()


class _Generators(NamedTuple):
    """Where the global generators stand."""

    torch: Tensor
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> "_Generators":
        """Read them."""
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002

    @classmethod
    def seeded(cls, seed: int) -> "_Generators":
        """Return where a seed puts them; they stay where they are."""
        return cls(
            torch.Generator().manual_seed(seed).get_state(),
            np.random.RandomState(seed % 2**32).get_state(),
            random.Random(seed).getstate(),
        )

    def put_back(self) -> None:
        """Set them."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)


@dataclass(eq=False)
class _Lane:
    """One image's attack in its thread."""

    row: int
    task: Task
    budget: int
    back: threading.Semaphore
    generators: _Generators
    job: Job
    question: _Forward | _Backward | None = None
    reply: _Reply | None = None
    pulled: Tensor | None = None
    failure: Exception | None = None
    finding: Finding | None = None
    is_closed: bool = False
    thread: threading.Thread | None = None
    best: tuple[bool, float, Tensor] | None = None
    tally: Outcome = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the unchanged image."""
        self.go = threading.Semaphore(0)
        self.tally = Outcome(self.task.image, False)
        self.task = self.task._replace(view=_View(self))

    @property
    def asked(self) -> _Forward:
        """The question, where it is one about points."""
        assert isinstance(self.question, _Forward)
        return self.question

    def turn(self) -> None:
        """Let the attack run until it asks again or ends."""
        self.generators.put_back()
        if self.thread is None:
            context = contextvars.copy_context()
            self.thread = threading.Thread(target=context.run, args=(self._work,), daemon=True)
            self.question = None
            self.thread.start()
        else:
            self.question = None
            self.go.release()
        self.back.acquire()
        self.generators = _Generators.now()

    def close(self) -> None:
        """End an attack that waits for an answer."""
        self.is_closed = True
        if self.thread is not None and self.thread.is_alive():
            self.go.release()

    def forward(self, points: Tensor, needs_graph: bool) -> _Reply:
        """Ask for logits; called in the thread of the attack."""
        if self.tally.forwards + len(points) > self.budget:
            self.tally.is_ended = True
            raise _Stop
        self.tally.forwards += len(points)
        self._wait(_Forward(points.detach().to("cpu", self.task.image.dtype), needs_graph))
        reply, self.reply = self.reply, None
        assert reply is not None
        return reply

    def backward(self, reply: _Reply, gradient: Tensor) -> Tensor:
        """Ask for a gradient; called in the thread of the attack."""
        self.tally.backwards += len(gradient)
        self._wait(_Backward(reply, gradient))
        pulled, self.pulled = self.pulled, None
        assert pulled is not None
        if self.tally.is_blind is None:
            self.tally.is_blind = not bool(pulled.any())
        return pulled

    def watch(self, logits: Tensor) -> None:
        """Keep the best of the points in the ball that were asked about: fooling, then margin."""
        points = self.asked.points.clamp(0.0, 1.0)
        centres = self.task.image.expand_as(points)
        linf, l2 = tiled(distances, None)(points, centres)
        inside = (linf if self.task.norm == "linf" else l2) <= self.task.eps * (1 + _REACH) + 1e-7
        labels = self.task.label.expand(len(points))
        margins = margin(logits.float(), labels, False)
        fooled = logits.argmax(dim=1) != labels
        for k in torch.nonzero(inside)[:, 0].tolist():
            standing = (bool(fooled[k]), float(margins[k]))
            if self.best is None or standing > self.best[:2]:
                self.best = (*standing, points[k : k + 1].clone())
        self.tally.is_found |= bool((fooled & inside).any())

    def outcome(self) -> Outcome:
        """Return what became of it."""
        if self.finding is not None:
            self.tally.image = self.finding.image
            self.tally.fooled = bool(self.finding.fooled)
        elif self.best is not None:
            self.tally.fooled, _, self.tally.image = self.best
        return self.tally

    def _wait(self, question: _Forward | _Backward) -> None:
        self.question = question
        self.back.release()
        self.go.acquire()
        if self.is_closed:
            raise _Stop

    def _work(self) -> None:
        try:
            with torch.inference_mode(False), torch.enable_grad():
                found = self.job(self.task)
                if found.fooled is None:
                    with torch.no_grad():  # a verdict
                        says = self.task.view(found.image).argmax(dim=1)
                    found = found._replace(fooled=bool((says.cpu() != self.task.label).any()))
            self.finding = found
        except _Stop:
            pass
        except Exception as error:  # told to the thread that waits for it
            self.failure = error
        finally:
            self.question = None
            self.back.release()


class _View(nn.Module):
    """What a library sees of a defense: images of one sample to logits, in evaluation mode.

    It has one parameter, which plays no part: libraries look there for the device.
    """

    def __init__(self, lane: _Lane) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros((), device="cpu"), requires_grad=False)
        self._lane = lane
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = _Answer.apply(images, self._lane)
        return answer


class _Answer(torch.autograd.Function):
    """Logits that another thread computes, and their gradient likewise."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, lane: _Lane) -> Tensor:
        reply = lane.forward(images, bool(ctx.needs_input_grad[0]))
        ctx.lane, ctx.reply, ctx.place = lane, reply, (images.device, images.dtype)
        return reply.logits.to(images.device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.lane.backward(ctx.reply, gradient.cpu()).to(*ctx.place), None
