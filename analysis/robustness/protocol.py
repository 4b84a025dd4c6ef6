"""The evaluation protocol: who draws which randomness, and what a robust accuracy means.

Fixed: attack and decision share one randomness configuration xi, so the defense is one
deterministic function and "fooled" is a fact.

Fresh: the attack draws from ``fold("attack", ...)``, decision k from ``fold("decision", k)``; they
never meet. From the same K decisions come the one-shot, mean, worst-of-K and majority accuracies.

Every stage (clean images, uniform noise in the ball, adversarial images) is decided under the same
decisions, so differences between stages are paired. Aggregates are computed from records only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from advpure.attacks.settings import Count as Repeats
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.core.chain import Noise
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import check_rows, tiled
from advpure.data import Images
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Length, Row, Schema, Share
from advpure.statistics.rates import Rate, randomized_summary

Randomness = Literal["fixed", "fresh"]
CLEAN, NOISE, ADVERSARIAL = "clean", "noise", "adversarial"
RUNGS = "rungs"
"""The setting of a run that attacks with one budget of evaluations after another, see `latest`."""
PURIFIED = {ADVERSARIAL: "purified"}
"""Stages whose purified images are kept, to the name that these have."""

DECISIONS = Schema(
    "decisions",
    {"sample": Count, "stage": str, "draw": Count},
    {"label": Count, "prediction": Count, "correct": bool, "margin": float},
    derived={"correct": ("equal", "label", "prediction")},
)
ATTACKS = Schema(
    "attacks",
    {"sample": Count, "stage": str},
    {
        "fooled": bool,
        "loss": float,
        "iterations": Count,
        "forwards": Count,
        "backwards": Count,
        "linf": Share,
        "l2": Length,
        "zero_gradient": bool,
        "lost": bool,
        "member": str,
    },
)
CLAIMS = Schema(
    "library",
    {"sample": Count, "stage": str},
    {"fooled": bool, "excess": Length, "ended": bool},
)
"""What another library says of the images that it made, see `advpure.attacks.outcome.Claims`."""


class Outcome(Protocol):
    """What an attack returns for a batch (advpure.attacks.AttackResult)."""

    @property
    def images(self) -> Tensor:
        """Adversarial images [B, C, H, W]."""
        ...

    @property
    def success(self) -> Tensor:
        """Whether the attack's own view is fooled [B]."""
        ...


Attack = Callable[[Defense, Tensor, Tensor, Tensor], Outcome]


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """How a random defense decides.

    Attributes:
        randomness: ``fixed`` or ``fresh``, see the module.
        draws: Decisions per image; 1 where randomness is fixed.
    """

    randomness: Randomness = "fixed"
    draws: Repeats = 1

    def __post_init__(self) -> None:
        """Check the number of draws."""
        validate(self)
        if self.randomness == "fixed" and self.draws != 1:
            raise BadInput(
                f"{self.draws} draws",
                "do not fit fixed randomness, where every draw is the same",
                "leave out --draws, or use fresh randomness",
            )

    def views(self, defense: Defense, ids: Tensor) -> list[Defense]:
        """Return the defense as each decision sees it."""
        if self.randomness == "fixed" or defense.xi is None:
            return [defense.at(ids=ids)] * self.draws
        xi = sampled(defense.xi)
        return [defense.at(ids=ids, xi=xi.fold("decision", k)) for k in range(self.draws)]


def sampled(xi: RandomnessConfig) -> RandomnessConfig:
    """Return the configuration with noise keyed by sample, whatever its scope was."""
    return RandomnessConfig(xi.seed, xi.scheme, "sample", xi.path)


def evaluate(
    defense: Defense,
    images: Images,
    attacks: Mapping[str, Attack],
    decisions: Decisions,
    store: RecordStore,
    *,
    batch_size: int,
    keep_images: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Decide clean and attacked images, and store every decision.

    Samples whose rows are all stored are passed over, so an interrupted run goes on. Each batch is
    one transaction; a batch's rows do not depend on its size, as the defense computes in tiles.

    Args:
        defense: The defense, with its randomness configuration.
        images: Images in [0, 1], labels, ids; rows in any order.
        attacks: Stage name to attack (defense, images, labels, ids) -> outcome.
        decisions: The protocol.
        store: Where rows go, opened with the tables DECISIONS and ATTACKS, and with CLAIMS where
            an attack is another library's.
        batch_size: Images held in memory at once.
        keep_images: Store the images of every stage as well, and what the first decision makes of
            adversarial ones.
        progress: Called with the number of finished images after each batch.
        enough: Asked before each batch whether the images that are done suffice.
    """
    batch_size = check_rows(batch_size)
    _check_store(store, decisions)
    defense.check_steady(images.images, repeatable=decisions.randomness == "fixed")
    done = finished(store, attacks)
    if keep_images:
        kept = set(store.blobs())
        kinds = [*attacks, CLEAN, *(PURIFIED[stage] for stage in PURIFIED.keys() & attacks.keys())]
        done = {i for i in done if all(f"{kind}/{i}" in kept for kind in kinds)}
    todo = [k for k, i in enumerate(images.ids.tolist()) if i not in done]
    progress(len(images.ids) - len(todo))
    for start in range(0, len(todo), batch_size):
        if enough():
            return
        batch = taken(images, todo[start : start + batch_size])
        measure_batch(defense, batch, attacks, decisions, store, keep_images=keep_images)
        progress(len(images.ids) - len(todo) + start + len(batch.ids))


def taken(images: Images, rows: Sequence[int]) -> Images:
    """Return some rows of images, labels and ids."""
    chosen = torch.tensor(rows, dtype=torch.int64, device="cpu")
    return Images(*(part[chosen] for part in images))


def measure_batch(
    defense: Defense,
    batch: Images,
    attacks: Mapping[str, Attack],
    decisions: Decisions,
    store: RecordStore,
    *,
    keep_images: bool = False,
    again: bool = False,
    stages: Callable[[str, Outcome], Sequence[str]] | None = None,
) -> None:
    """Attack and decide a batch, and store all of it in one transaction.

    Args:
        defense: The defense.
        batch: The images.
        attacks: As for `evaluate`.
        decisions: The protocol.
        store: Where rows go.
        keep_images: Store images as well.
        again: Whether the clean images are decided already.
        stages: From a stage and its outcome to the name of the stage for each image; an image that
            is stored under another name than the stage's is kept in any case.
    """
    outcomes = {
        stage: attack(defense.at(ids=batch.ids), batch.images, batch.labels, batch.ids)
        for stage, attack in attacks.items()
    }
    seen = {} if again else {CLEAN: batch.images}
    seen |= {s: out.images for s, out in outcomes.items()}
    names = {stage: [stage] * len(batch.ids) for stage in seen}
    if stages is not None:
        names |= {stage: list(stages(stage, out)) for stage, out in outcomes.items()}

    def named(stage: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        own = dict(zip(batch.ids.tolist(), names[stage], strict=True))
        return [row | {"stage": own[row["sample"]]} for row in rows]

    decided = [
        row
        for stage, x in seen.items()
        for row in named(stage, _decide(defense, decisions, stage, x, batch))
    ]
    with store.batch():
        store.append(DECISIONS.table, decided)
        for stage, outcome in outcomes.items():
            store.append(ATTACKS.table, named(stage, _attack_rows(stage, outcome, batch.ids)))
            if getattr(outcome, "claims", None) is not None:
                store.append(CLAIMS.table, _claim_rows(stage, outcome, batch.ids))
            _keep(store, names[stage], batch.ids, outcome.images, () if keep_images else (stage,))
        if keep_images:
            if not again:
                _keep(store, names[CLEAN], batch.ids, batch.images)
            for stage in PURIFIED.keys() & outcomes.keys():
                view = decisions.views(defense, batch.ids)[0]
                pure = [PURIFIED[stage] if name == stage else "" for name in names[stage]]
                _keep(store, pure, batch.ids, purified(view, outcomes[stage].images), ("",))


def purified(view: Defense, images: Tensor) -> Tensor:
    """Return what a decision's purifier makes of images [B, C, H, W], clipped to [0, 1]."""
    with torch.no_grad():  # a picture, not a gradient
        found = tiled(lambda x, i: view.purifier.purify(x, Noise(view.xi, i)), view.tile)(
            images, view.ids
        )
    return found.clamp(0, 1)


def _keep(
    store: RecordStore, kinds: Sequence[str], ids: Tensor, images: Tensor, but: Sequence[str] = ()
) -> None:
    """Store images by kind and id, but for those of some kinds."""
    for kind, i, image in zip(kinds, ids.tolist(), images, strict=True):
        if kind not in but:
            store.put_blob(f"{kind}/{i}", image.float().cpu())


def rung_stages(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stages of a run's rungs, the last of which is the attack's own.

    Example:
        >>> rung_stages({"rungs": [125, 500]}), rung_stages({})
        (('adversarial 125', 'adversarial'), ('adversarial',))
    """
    return (*(f"{ADVERSARIAL} {budget}" for budget in settings.get(RUNGS, ())[:-1]), ADVERSARIAL)


def latest(store: RecordStore, table: str, stage: str | None = None) -> list[Row]:
    """Return rows, of images that were not attacked on every rung those of the last one.

    Args:
        store: A run's records.
        table: Of decisions or of attacks.
        stage: Only those of a stage.
    """
    rows, stages = store.rows(table), rung_stages(store.settings)
    if len(stages) > 1:
        order = {name: k for k, name in enumerate(stages)}
        last: dict[int, int] = {}
        for row in rows:
            rung = order.get(row["stage"], -1)
            last[row["sample"]] = max(rung, last.get(row["sample"], -1))
        rows = [
            row | {"stage": ADVERSARIAL} if row["stage"] in order else row
            for row in rows
            if order.get(row["stage"], last[row["sample"]]) == last[row["sample"]]
        ]
    return [row for row in rows if stage in (None, row["stage"])]


def finished(store: RecordStore, stages: Iterable[str]) -> set[int]:
    """Return the ids whose rows are stored for all attack stages."""
    done = store.done(ATTACKS.table, "sample", "stage")
    decided = {sample for (sample,) in store.done(DECISIONS.table, "sample")}
    return {i for i in decided if all((i, stage) in done for stage in stages)}


def _check_store(store: RecordStore, decisions: Decisions) -> None:
    known = store.settings.get("decisions")
    mine = {"randomness": decisions.randomness, "draws": decisions.draws}
    if known is not None and known != mine:
        raise BadInput(
            f"a run with decisions {known}", f"is not one with {mine}", "use another --out"
        )


def _decide(
    defense: Defense, decisions: Decisions, stage: str, images: Tensor, batch: Images
) -> list[dict[str, Any]]:
    rows = []
    for draw, view in enumerate(decisions.views(defense, batch.ids)):
        with torch.no_grad():  # a decision, not a gradient
            logits = view(images).cpu().double()
        labels = batch.labels.cpu()
        predictions = logits.argmax(1)
        own = logits.gather(1, labels[:, None]).squeeze(1)
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        for i, y, p, m in zip(
            batch.ids.tolist(),
            labels.tolist(),
            predictions.tolist(),
            (own - others).tolist(),
            strict=True,
        ):
            rows.append(
                {
                    "sample": i,
                    "stage": stage,
                    "draw": draw,
                    "label": y,
                    "prediction": p,
                    "correct": p == y,
                    "margin": m,
                }
            )
    return rows


def _attack_rows(stage: str, outcome: Outcome, ids: Tensor) -> list[dict[str, Any]]:
    columns: dict[str, Sequence[Any]] = {
        name: getattr(outcome, "success" if name == "fooled" else name).tolist()
        for name in ATTACKS.values
        if name != "member"
    }
    columns["member"] = getattr(outcome, "members", None) or [""] * len(ids)
    return [
        {"sample": i, "stage": stage} | {name: column[k] for name, column in columns.items()}
        for k, i in enumerate(ids.tolist())
    ]


def _claim_rows(stage: str, outcome: Outcome, ids: Tensor) -> list[dict[str, Any]]:
    claims: Any = getattr(outcome, "claims", None)
    columns = {name: getattr(claims, name).tolist() for name in CLAIMS.values}
    return [
        {"sample": i, "stage": stage} | {name: column[k] for name, column in columns.items()}
        for k, i in enumerate(ids.tolist())
    ]


@dataclass(frozen=True)
class StageSummary:
    """Accuracies of one stage, each with n and a 95 % interval (advpure.statistics.rates).

    Attributes:
        one_shot: Correct in the first decision.
        mean: Mean over decisions of the share of correct images.
        worst: Correct in every decision.
        majority: The most frequent prediction is correct.
    """

    one_shot: Rate
    mean: Rate
    worst: Rate
    majority: Rate


def summarize(
    store: RecordStore,
    ids: Sequence[int] | None = None,
    rate: Callable[[Sequence[float]], Rate] | None = None,
) -> dict[str, StageSummary]:
    """Compute every stage's accuracies from the stored decisions.

    Args:
        store: A run's records.
        ids: Only these samples, in this order; all by default.
        rate: From one share per sample, in their order, to a rate with its interval; by default
            Wilson's for a number of samples that was fixed before.

    Raises:
        BadInput: when there is no decision yet.
    """
    rows = latest(store, DECISIONS.table)
    if ids is not None:
        place = {sample: k for k, sample in enumerate(ids)}
        rows = [row for row in rows if row["sample"] in place]
        rows.sort(key=lambda row: place[row["sample"]])  # draws stay in order
    if not rows:
        raise BadInput(f"run {store.folder}", "holds no decision yet", "run it first")
    stages = dict.fromkeys(sorted({row["stage"] for row in rows}))
    summaries = {}
    for stage in stages:
        own = [row for row in rows if row["stage"] == stage]
        draws = 1 + max(row["draw"] for row in own)
        predictions = torch.tensor(
            [row["prediction"] for row in own], dtype=torch.int64, device="cpu"
        ).reshape(-1, draws)
        labels = torch.tensor(
            [row["label"] for row in own], dtype=torch.int64, device="cpu"
        ).reshape(-1, draws)[:, 0]
        s = randomized_summary(predictions.numpy(), labels.numpy(), rate=rate)
        summaries[stage] = StageSummary(s.one_shot, s.mean, s.worst, s.majority)
    return summaries
