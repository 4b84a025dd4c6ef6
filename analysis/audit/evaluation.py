"""An evaluation that is audited: its records, and its defense where probes ask it.

Probes are made on a few images, spread over those of the evaluation. Every pass through the defense
is counted. What probes draw, ``fold("audit", ...)``, neither the attack nor a decision has seen.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advpure.analysis.audit.check import is_fixed, is_random
from advpure.analysis.audit.origins import Origin, origins
from advpure.analysis.audit.recorded import Recorded
from advpure.analysis.robustness.protocol import ADVERSARIAL, sampled
from advpure.analysis.robustness.study import LoadedRobustness
from advpure.attacks.losses import LOSSES
from advpure.attacks.oracle import Oracle, Slope, answer_of, check_batch
from advpure.attacks.outcome import AttackResult
from advpure.attacks.registry import find, settings_type
from advpure.attacks.settings import AttackSettings, GradientSettings
from advpure.core.defense import Answer, Defense
from advpure.core.gradients import GradientMode
from advpure.core.own import OwnModel
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images

FRESH_DECISIONS = 10
"""Decisions of one image under fresh randomness, in draws that nothing else sees."""
INSIDE = 0.02
"""How far from black and white the points are at which slopes are measured."""


def every_third(images: Images) -> Images:
    """Return every third of some images, of those that an evaluation left out as many as probed."""
    return Images(*(part[::3] for part in images))


@dataclass(kw_only=True)
class Evaluation:
    """What checks may ask.

    Attributes:
        recorded: Its records.
        loaded: Its defense, attack and protocol; None where records alone are read.
        images: The images that probes are made on.
        kept: Returns the adversarial image of a sample that the run kept, None where it kept none.
        fault: A flaw for which the model was refused, one of `FAULTS`; empty where it was not.
        renew: Makes the defense again, with nothing that it may have remembered.
        others: Loads images of the same split that the evaluation left out, None for none.
        forwards: Passes through the defense so far, of all images.
        backwards: Backward passes so far.
    """

    recorded: Recorded
    loaded: LoadedRobustness | None = None
    images: Images | None = None
    kept: Callable[[int], Tensor | None] = lambda sample: None
    fault: str = ""
    renew: Callable[[], Defense] | None = None
    others: Callable[[], Images | None] = lambda: None
    forwards: int = field(default=0, init=False)
    backwards: int = field(default=0, init=False)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What identifies the evaluation."""
        return self.recorded.settings

    @property
    def defense(self) -> Defense:
        """The defense."""
        assert self.loaded is not None
        return self.loaded.defense

    @property
    def batch(self) -> Images:
        """The images that probes are made on."""
        assert self.images is not None
        return self.images

    @property
    def eps(self) -> float:
        """The radius of the ball."""
        return float(self.settings["threat_model"]["eps"])

    @property
    def norm(self) -> Any:
        """The norm of the ball."""
        return self.settings["threat_model"]["norm"]

    @property
    def fixed(self) -> bool:
        """Whether one function decides."""
        return is_fixed(self.settings)

    @property
    def is_controlled(self) -> bool:
        """Whether equal keys give equal answers."""
        parts = (self.defense.purifier.model, self.defense.classifier)
        return not any(isinstance(each, OwnModel) and each.draws == "fresh" for each in parts)

    @property
    def new_defense(self) -> Defense:
        """A new copy of the defense; the defense itself where it cannot be made again."""
        return self.defense if self.renew is None else self.renew()

    def decided(self, points: Tensor, batch: Images, defense: Defense | None = None) -> Tensor:
        """Return logits [B, classes], float64, of the first decision, of a copy or the defense."""
        assert self.loaded is not None
        self.count(len(points))
        view = self.loaded.decisions.views(defense or self.defense, batch.ids)[0]
        with torch.no_grad():  # a decision, not a gradient
            return view(points).double().cpu()

    @cached_property
    def before(self) -> dict[int, float]:
        """The share of right decisions of every image of `batch` under attack, as recorded."""
        robust = self.recorded.robust
        return {i: robust[i] for i in self.batch.ids.tolist()}

    @cached_property
    def survivors(self) -> Images:
        """Images to try something else on: under fixed randomness those that are right, else all.

        Under fresh randomness a choice by recorded draws would flatter what is tried.
        """
        if not self.fixed:
            return self.batch
        return self.some([i for i, right in self.before.items() if right > 0])

    @cached_property
    def kept_adversarial(self) -> Tensor | None:
        """The images that the attack made of those of `batch`, where the run kept them."""
        kept = [self.kept(i) for i in self.batch.ids.tolist()]
        if any(each is None for each in kept):
            return None
        return torch.stack([each for each in kept if each is not None]).to(self.batch.images)

    @cached_property
    def adversarial(self) -> Tensor:
        """The images that the attack made of those of `batch`: kept ones, else crafted again."""
        if self.kept_adversarial is not None:
            return self.kept_adversarial
        assert self.loaded is not None
        run = self.loaded.attacks[ADVERSARIAL]
        view = self.defense.at(ids=self.batch.ids)
        result: Any = run(view, self.batch.images, self.batch.labels, self.batch.ids)
        self.count(int(result.forwards.sum()), int(result.backwards.sum()))
        images: Tensor = result.images
        return images

    def count(self, forwards: int, backwards: int = 0) -> None:
        """Add passes."""
        self.forwards += forwards
        self.backwards += backwards

    def some(self, ids: Sequence[int]) -> Images:
        """Return those images of `batch` that have these ids."""
        wanted = set(ids)
        rows = [k for k, i in enumerate(self.batch.ids.tolist()) if i in wanted]
        return Images(*(part[rows] for part in self.batch))

    def first(self, count: int) -> Images:
        """Return the first images of `batch`."""
        return Images(*(part[:count] for part in self.batch))

    def view(self, ids: Tensor, draw: int | None = None, purpose: str = "probe") -> Defense:
        """Return the defense under its own randomness, or under a draw of the audit.

        Args:
            ids: Sample ids of the rows.
            draw: Number of the draw; None for what a decision sees under fixed randomness, and for
                draw 0 under a fresh one.
            purpose: Keeps draws of different checks apart.
        """
        xi = self.defense.xi
        if xi is None or not is_random(self.settings) or (draw is None and self.fixed):
            return self.defense.at(ids=ids)
        return self.defense.at(ids=ids, xi=sampled(xi).fold("audit", purpose, draw or 0))

    def answers(self, points: Tensor, ids: Tensor, draw: int | None = None) -> Tensor:
        """Return logits [B, classes], float64, at points in [0, 1]."""
        return self._answer(points, ids, draw).decided.double()

    def margins(self, points: Tensor, batch: Images, draw: int | None = None) -> Tensor:
        """Return by how much the attack has won [B]: positive where the image is misclassified.

        That is the margin of what attacks climb. Of a vote, which is flat, it is that of the mean
        probability of the voters, whose sign may differ where votes are nearly even.
        """
        return LOSSES["margin"](self.climbed(points, batch.ids, draw), batch.labels, False)

    def climbed(self, points: Tensor, ids: Tensor, draw: int | None = None) -> Tensor:
        """Return the logits [B, classes], float64, whose loss attacks climb; see `Answer`."""
        return self._answer(points, ids, draw).climbed.double()

    def _answer(self, points: Tensor, ids: Tensor, draw: int | None) -> Answer:
        self.count(len(points))
        with torch.no_grad():  # an answer, no gradient flows
            return answer_of(self.view(ids, draw), points)

    def right(
        self, points: Tensor, batch: Images, fresh: int = FRESH_DECISIONS
    ) -> dict[int, float]:
        """Return the share of right decisions of points [B, C, H, W], in draws of the audit."""
        draws: list[int | None] = [None] if self.fixed else list(range(fresh))
        labels, total = batch.labels.cpu(), torch.zeros(len(batch.ids))
        for draw in draws:
            self.count(len(points))
            with torch.no_grad():  # a decision, not a gradient
                logits = self.view(batch.ids, draw, "decision")(points).cpu()
            total += logits.argmax(1) == labels
        return dict(zip(batch.ids.tolist(), (total / len(draws)).tolist(), strict=True))

    def slope(
        self,
        points: Tensor,
        batch: Images,
        *,
        loss: Any = "margin",
        gradient: GradientMode | None = None,
        draw: int | None = None,
        purpose: str = "probe",
    ) -> Slope:
        """Return loss and gradient of one pass at points; the mode is the attack's own if None."""
        self.count(len(points), len(points))
        view = self.view(batch.ids, draw, purpose)
        mode = gradient or getattr(self._chosen, "gradient", None)
        settings = GradientSettings(eps=1.0, steps=1, loss=loss, gradient=mode)
        checked = check_batch(view, points, batch.labels, batch.ids)
        return Oracle(view, settings).slope(*checked, step=0)

    def attack(self, name: str, batch: Images, **settings: Any) -> AttackResult:
        """Run one of our attacks under the threat model and the randomness of the evaluation."""
        own = {"eps": self.eps, "norm": self.norm, "seed": 1} | settings
        own["randomness"] = "fixed" if self.fixed else "fresh"
        return self._run(name, settings_type(find(name))(**own), batch)

    def own_attack(self, batch: Images, **changes: Any) -> AttackResult:
        """Run the evaluation's attack with some of its settings changed."""
        return self._run(self.attack_name, dataclasses.replace(self._chosen, **changes), batch)

    def tried(self, name: str, **settings: Any) -> dict[int, float]:
        """Run one of our attacks on the survivors; return the share of right decisions of all.

        Images that were fooled before stay fooled under fixed randomness.
        """
        batch = self.survivors
        if not len(batch.ids):
            return dict(self.before)
        return self.before | self.right(self.attack(name, batch, **settings).images, batch)

    @property
    def attack_name(self) -> str:
        """The name of the evaluation's attack."""
        return str(self.settings["attack"]["name"])

    @cached_property
    def left_out(self) -> Images | None:
        """Images of the same split and classes that the evaluation left out; None for none."""
        found = self.others()
        if found is None:
            return None
        known = torch.isin(found.labels, self.batch.labels.cpu())
        if not bool(known.any()):
            return None
        images, labels, ids = (part[known] for part in found)
        return Images(images.to(self.batch.images), labels.to(self.batch.labels), ids)

    @cached_property
    def origins(self) -> dict[int, Origin | None]:
        """Of which image of a known data set each of `batch` is a copy, None for none."""
        return origins(str(self.settings["dataset"]), self.batch)

    @cached_property
    def inside(self) -> Tensor:
        """Points near the images of `batch` and off the ends of the box: noise in half the ball."""
        reach = min(self.eps, 0.5) / 2 if self.norm == "linf" else 0.02
        xi = RandomnessConfig(0, "counter").fold("audit", "points")
        shape = tuple(self.batch.images.shape[1:])
        noise = 2 * xi.uniform(self.batch.ids, 0, shape).to(self.batch.images) - 1
        return (self.batch.images + reach * noise).clamp(INSIDE, 1 - INSIDE)

    def directions(self, count: int, batch: Images) -> list[Tensor]:
        """Return random directions [B, C, H, W] whose entries have root mean square 1."""
        xi = RandomnessConfig(0, "counter").fold("audit", "directions")
        shape = tuple(batch.images.shape[1:])
        drawn = [
            xi.normal(batch.ids, "forward", 0, shape, k).to(batch.images) for k in range(count)
        ]
        return [each / each.square().mean((1, 2, 3), keepdim=True).sqrt() for each in drawn]

    @property
    def _chosen(self) -> AttackSettings:
        assert self.loaded is not None
        return self.loaded.attack_settings

    def _run(self, name: str, settings: AttackSettings, batch: Images) -> AttackResult:
        view = self.defense.at(ids=batch.ids)
        result: Any = find(name)(view, batch.images, batch.labels, settings, ids=batch.ids)
        self.count(int(result.forwards.sum()), int(result.backwards.sum()))
        done: AttackResult = result
        return done
