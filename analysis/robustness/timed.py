"""An attack within an amount of time: rungs of growing budgets, all images on one before the next.

The standard attack is run with budgets of evaluations that grow fourfold up to its own
(`StandardSettings.rungs`), on every rung only on the images that the rungs before left, and the
best image found before competes again. The clock decides how far that gets and nothing else: what
an image got on a rung depends on the image alone. So an interrupted run goes on, and the records of
a rung are the same whenever it was reached. Other attacks are run as they are, image by image.

A group of images that has begun is finished: a tile on the first rung, an eighth of one beyond.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advpure.analysis.robustness.protocol import (
    ADVERSARIAL,
    ATTACKS,
    NOISE,
    RUNGS,
    Attack,
    Decisions,
    Outcome,
    measure_batch,
    rung_stages,
    taken,
)
from advpure.attacks.outcome import AttackResult
from advpure.attacks.standard import StandardSettings, standard
from advpure.base.errors import BadInput
from advpure.base.validation import Range, number, shown, whole
from advpure.core.defense import Defense
from advpure.data import Images
from advpure.runs.records import RecordStore

_TIME = re.compile(r"([\d.]+)\s*(s|seconds?|min|minutes?|h|hours?)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MOST = 10**6
_SHARE = 8
"""Of a tile, the images attacked at once beyond the first rung, where each has many lanes."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an attack may take; one of the two.

    Attributes:
        evaluations: Evaluations an image.
        seconds: Time of one session.
    """

    evaluations: int | None = None
    seconds: float | None = None

    @classmethod
    def read(cls, value: int | str) -> "Budget":
        """Read a number of evaluations, or a time.

        Raises:
            BadInput: for another text, or a number out of range.

        Example:
            >>> Budget.read("500").evaluations, Budget.read("10min").seconds
            (500, 600.0)
        """
        text = str(value).strip().lower()
        found = _TIME.fullmatch(text)
        if found is not None:
            amount = number(found[1], "budget", Range(above=0.0))
            return cls(seconds=amount * _SECONDS[found[2][0]])
        if isinstance(value, str) and not re.fullmatch(r"[-+]?\d+", text):
            fix = "write evaluations an image, such as 500, or a time, such as 10min, 90s or 1.5h"
            raise BadInput(f"budget {shown(value)}", "is not understood", fix)
        evaluations = whole(int(text), "budget", 1)
        if evaluations > _MOST:
            rule = f"is more than {_MOST:,} evaluations an image"
            raise BadInput(f"budget {evaluations}", rule, f"use {_MOST} or less")
        return cls(evaluations=evaluations)


class Deadline:
    """Says when a session's time is over; never before its first group of images.

    Args:
        seconds: The time, infinity for no end.
        clock: Returns seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now."""
        self._clock, self._end, self._asked = clock, clock() + seconds, False

    def __call__(self) -> bool:
        """Return whether the time is over."""
        first, self._asked = not self._asked, True
        return not first and self._clock() >= self._end


def climb_rungs(
    defense: Defense,
    images: Images,
    settings: StandardSettings,
    noise: Attack,
    decisions: Decisions,
    store: RecordStore,
    *,
    batch_size: int,
    over: Callable[[], bool],
    depth: int | None = None,
    keep_images: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Attack rung by rung until the time is over, and store what is done.

    Args:
        defense: The defense.
        images: The images.
        settings: The attack; the rungs are those of the store's settings.
        noise: Noise in the ball, decided beside the first rung.
        decisions: The protocol.
        store: Where rows go.
        batch_size: Images at once on the first rung.
        over: Asked before each group of images.
        depth: Rungs at most; None for all.
        keep_images: Store the images of decided ones.
        progress: Called with the number of images that are decided.
    """
    if not defense.is_random:
        settings = replace(settings, randomness="fixed")
    defense.check_steady(images.images, repeatable=decisions.randomness == "fixed")
    rungs, stages = store.settings[RUNGS], rung_stages(store.settings)
    ids = images.ids.tolist()
    for k, budget in enumerate(rungs[:depth]):
        reached = _reached(store)
        todo = [place for place, i in enumerate(ids) if reached.get(i, 0) == k]
        size = batch_size if k == 0 else max(batch_size // _SHARE, 1)
        chosen = replace(settings, budget=budget, seed=(settings.seed + k) % 2**64)
        attacks = {NOISE: noise} if k == 0 else {}
        attacks[ADVERSARIAL] = _rung(chosen, store, stages[k - 1] if k else None)
        last = stages[k]

        def stage_of(stage: str, out: Outcome, last: str = last) -> list[str]:
            left = getattr(out, "undecided", None)
            if stage != ADVERSARIAL or left is None:
                return [stage] * len(out.images)
            return [last if each else stage for each in left.tolist()]

        for start in range(0, len(todo), size):
            progress(sum(each > len(rungs) for each in _reached(store).values()))
            if over():
                return
            measure_batch(
                defense,
                taken(images, todo[start : start + size]),
                attacks,
                decisions,
                store,
                keep_images=keep_images,
                again=k > 0,
                stages=stage_of,
            )
    progress(sum(each > len(rungs) for each in _reached(store).values()))


def _rung(chosen: StandardSettings, store: RecordStore, before: str | None) -> Attack:
    """Return the attack of a rung, which goes on from what the rung before stored."""

    def attack(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> AttackResult:
        if before is None:
            return standard(model, x, y, chosen, ids=ids)
        known = torch.stack([store.get_blob(f"{before}/{i}") for i in ids.tolist()]).to(x)
        result = standard(model, x, y, chosen, ids=ids, known=known)
        earlier = {row["sample"]: row for row in store.rows(ATTACKS.table, {"stage": before})}
        rows = [earlier[i] for i in ids.tolist()]
        counts = {
            name: getattr(result, name) + torch.tensor([row[name] for row in rows])
            for name in ("iterations", "forwards", "backwards")
        }
        same = (result.images == known).flatten(1).all(dim=1).tolist()
        members = tuple(
            row["member"] if kept else member
            for row, kept, member in zip(rows, same, result.members or (), strict=True)
        )
        return replace(result, members=members, **counts)

    return attack


def _reached(store: RecordStore) -> dict[int, int]:
    """Return how many rungs every image has behind it; one more than there are if it is decided."""
    stages = rung_stages(store.settings)
    reached: dict[int, int] = {}
    for row in store.rows(ATTACKS.table):
        if row["stage"] in stages:
            rung = (
                len(stages) + 1 if row["stage"] == ADVERSARIAL else stages.index(row["stage"]) + 1
            )
            reached[row["sample"]] = max(rung, reached.get(row["sample"], 0))
    return reached


@dataclass(frozen=True, kw_only=True)
class RungCount:
    """How far the images of a run came on a rung.

    Attributes:
        budget: Evaluations an image, at most.
        attacked: Images that were attacked with them.
        of: Images that the rungs before left.
        fooled: Images that were fooled on it.
    """

    budget: int
    attacked: int
    of: int
    fooled: int


def rung_counts(store: RecordStore) -> tuple[RungCount, ...]:
    """Return how far a run came on every rung; nothing for a run without them."""
    rungs: Sequence[int] = store.settings.get(RUNGS, ())
    stages, names = rung_stages(store.settings), dict[int, set[str]]()
    fooled: dict[int, bool] = {}
    for row in store.rows(ATTACKS.table):
        if row["stage"] in stages:
            names.setdefault(row["sample"], set()).add(row["stage"])
            fooled[row["sample"]] = fooled.get(row["sample"], False) or row["fooled"]
    found, waiting = [], len(store.samples or names)
    for k, budget in enumerate(rungs):
        on = [
            i
            for i, own in names.items()
            if len(own - {ADVERSARIAL}) > k or (ADVERSARIAL in own and len(own) == k + 1)
        ]
        ended = [i for i in on if len(names[i]) == k + 1 and ADVERSARIAL in names[i]]
        hit = sum(fooled[i] for i in ended)
        found.append(RungCount(budget=budget, attacked=len(on), of=waiting, fooled=hit))
        waiting = len(on) - len(ended)
    return tuple(found)


def bound_words(rungs: Sequence[RungCount]) -> Iterator[str]:
    """Yield, for a run that time ended, how far its images came."""
    if any(each.attacked < each.of for each in rungs):
        parts = (f"{each.attacked} of {each.of} with {each.budget}" for each in rungs if each.of)
        yield f"images attacked, with evaluations at most: {', '.join(parts)}"


def depth_of(store: RecordStore, sample: int | None) -> int | None:
    """Return the rungs that an image has behind it, to attack it so far again."""
    if RUNGS not in store.settings or sample is None:
        return None
    return sum(
        row["stage"] in rung_stages(store.settings)
        for row in store.rows(ATTACKS.table, {"sample": sample})
    )


def is_decided(store: RecordStore, images: Images) -> bool:
    """Return whether every image is decided."""
    done = {row["sample"] for row in store.rows(ATTACKS.table, {"stage": ADVERSARIAL})}
    return done >= set(images.ids.tolist())
