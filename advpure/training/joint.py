"""Train a joint classifier and discriminator on attacked real and attacked generated images.

For real images x and generated ones g, each with its class c, minimise the sum of two means,

    mean over x of l_CE(x', c) + l_BCE(x', c)  +  mean over g of l_CE(g', c) + l_BCE(g', c),

with the losses of `advpure.networks.joint`, on attacked images only:

* x' lowers f_c in a small ball, l2, a few steps;
* g' raises f_c in a wide one, with more and more steps: so the model first unlearns what looks
  real close to a generated image, then what does farther away. A row stops as soon as its
  probability of being real is above the mean one of the attacked real images of its batch;
* both with batch normalisation by running statistics; then one call of the network learns from all
  of them, with those of the whole batch.

The same attack serves both losses. The network starts as a robust classifier with a new last layer.
Generated images are drawn anew at every step, by one evaluation of a consistency model; where that
has no classes, `labeller` says them. What changes real images alone, such as a recipe's `shift`,
would tell the two apart, and is refused. Flips are harmless where the model was trained on them.

Printed otherwise, and kept as settings: the attack on generated images minimises their own form of
l_BCE, which lowers f_c and makes them easy (`fake_attack = "lower"`); the reference level l0 is the
mean of the real form (`l0_form = "real"`); and, of both attacks, what `advpure.attacks.guided` says
of algorithm 1: steps along the raw gradient (`direction = "raw"`), a norm without a name
(`norm = "linf"`), a gradient that is thrown away (`extra = true`). Not said in the source: the
first number of steps, how many are added, optimiser, learning rate, batch and length; those of the
recipes are our choice.

Source: [Golan2024], section 3.1 and equations 7 to 10 and 13.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.attacks.guided import Aim, GuidedSettings, Objective, guide
from advpure.base.errors import BadInput
from advpure.data import RawSplit
from advpure.networks import build_network
from advpure.networks.joint import binary_losses, realness
from advpure.networks.weights import LoadedNetwork, state_sha256
from advpure.training.adversarial import attacking, hold_back
from advpure.training.generated import OneStepGenerator
from advpure.training.randomness import step_generator
from advpure.training.tasks import Batch, Task, fixed_classifier, take

_DEFAULTS = {
    "generator": "",
    "labeller": "",
    "attacked": True,
    "real_eps": 1.0,
    "real_steps": 4,
    "real_step_size": 0.25,
    "fake_eps": 10.0,
    "fake_step_size": 0.1,
    "fake_steps": 1,
    "fake_steps_every": 1000,
    "fake_steps_added": 1,
    "fake_steps_most": 100,
    "early_stop": True,
    "norm": "l2",
    "direction": "unit",
    "extra": False,
    "fake_attack": "raise",
    "l0_form": "generated",
    "held_back": 500,
}
_PRINTED = ("norm", "direction", "extra")
_HEAD = "leave."
"""What the names of the last layer start with, in every classifier of ours."""


class JointTask(Task):
    """Train a joint classifier and discriminator.

    Args:
        dataset: Data set that is trained on.
        settings: generator (a consistency model: a shipped name or a weights file) and labeller
            (the classifier that says the classes of what an unconditional one makes; empty for the
            teacher); attacked (false: the same losses without attacks); real_eps, real_steps,
            real_step_size, fake_eps, fake_step_size ([0, 1] units); fake_steps (at the start),
            fake_steps_every (training steps after which fake_steps_added more are taken, up to
            fake_steps_most); early_stop; norm, direction, extra, fake_attack and l0_form (see the
            module); held_back (images kept for validation and l0).
        teacher: The classifier to start from.
    """

    metric_name = "real_above_generated"
    discriminates = True

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings, and load generator and labeller."""
        values = take(settings, _DEFAULTS)
        if teacher is None or teacher.metadata.get("task") != "classifier":
            raise BadInput("teacher", "is no classifier", "give the classifier to start from")
        if not values["generator"]:
            raise BadInput("generator", "is not given", "name a consistency model in [loss]")
        self.teacher, self.values = teacher, values
        labeller = str(values["labeller"])
        self.labeller = fixed_classifier(labeller, dataset) if labeller else teacher.network
        self.generator = OneStepGenerator(str(values["generator"]), dataset, self.labeller)
        self.fake_steps = int(values["fake_steps"])
        self.real_attack = self._attack("real", values["real_steps"])
        self.level = math.nan

    def initialise(self, network: nn.Module, seed: int) -> None:
        """Draw a new last layer; the rest stays as the teacher has it."""
        made = self.teacher.metadata
        generator = step_generator(seed, "new last layer")
        fresh = build_network(made["architecture"], made["config"], generator).state_dict()
        head = {name: value for name, value in fresh.items() if name.startswith(_HEAD)}
        network.load_state_dict({**network.state_dict(), **head})

    def divide(self, data: RawSplit) -> RawSplit:
        """Keep the last images apart."""
        kept, self.held_out = hold_back(data, self.values["held_back"])
        return kept

    def begin_step(self, step: int, steps: int) -> None:
        """Set how many steps the attack on generated images takes."""
        values = self.values
        added = values["fake_steps_added"] * (step // values["fake_steps_every"])
        self.fake_steps = min(values["fake_steps"] + added, values["fake_steps_most"])

    @property
    def fake_attack(self) -> GuidedSettings:
        """The attack on generated images, at the current step."""
        return self._attack("fake", self.fake_steps)

    def _attack(self, of: str, steps: int) -> GuidedSettings:
        values = self.values
        printed = {name: values[name] for name in _PRINTED}
        size, eps = values[f"{of}_step_size"], values[f"{of}_eps"]
        return GuidedSettings(steps=steps, step_size=size, eps=eps, **printed)

    def attack(self, network: nn.Module, real: Batch, fake: Batch) -> tuple[Tensor, Tensor]:
        """Return attacked real and attacked generated images, without a graph.

        Args:
            network: In evaluation mode.
            real: Real images and their classes.
            fake: Generated images and theirs.
        """
        values = self.values
        if not values["attacked"]:
            return real.images, fake.images
        lowered = guide(towards(network, real.labels, -1.0), real.images, self.real_attack).images
        least = math.inf
        if values["early_stop"]:
            with torch.no_grad():  # a threshold: nothing differentiates it
                level = realness(network(lowered), real.labels)
            least = float(level.sigmoid().mean())
        sign = 1.0 if values["fake_attack"] == "raise" else -1.0
        climb = towards(network, fake.labels, sign, least)
        return lowered, guide(climb, fake.images, self.fake_attack).images

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the sum of the losses of each real image and a generated one, [B]."""
        fake = self.generator(len(batch.labels), generator, batch.images.device)
        with attacking(network):
            real_images, fake_images = self.attack(network, batch, fake)
        labels = torch.cat([batch.labels, fake.labels])
        logits = network(torch.cat([real_images, fake_images.to(real_images)]))
        return joint_losses(logits, labels, len(batch.labels))

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return for each real image the share of generated ones that are less real, [B].

        The images are not attacked; the mean is the area under the curve of the discriminator.
        """
        fake = self.generator(len(batch.labels), generator, batch.images.device)
        ours = realness(network(batch.images), batch.labels)
        theirs = realness(network(fake.images), fake.labels)
        return (ours[:, None] > theirs[None]).float().mean(1)

    def conclude(self, network: nn.Module, steps: int) -> None:
        """Measure l0 on the real images that were kept apart."""
        self.begin_step(max(steps - 1, 0), steps)
        batch = self.held_out.to(network)
        with torch.no_grad():  # a measurement
            level = realness(network(batch.images), batch.labels)
        self.level = float(binary_losses(level, self.values["l0_form"]).double().mean())

    def facts(self) -> dict[str, Any]:
        """Return the reference level, and what it was trained against."""
        values = self.values
        attacks = ["real_eps", "real_steps", "real_step_size", "fake_eps", "fake_step_size"]
        attacks += [name for name in _PRINTED if values[name] != _DEFAULTS[name]]
        return {
            "l0": self.level,
            "l0_form": values["l0_form"],
            "attacked": values["attacked"],
            **({name: values[name] for name in attacks} if values["attacked"] else {}),
            "fake_steps_at_the_end": self.fake_steps if values["attacked"] else 0,
            "generator": values["generator"],
            "generator_sha256": self.generator.sum,
            "labeller": values["labeller"],
            "labeller_sha256": state_sha256(self.labeller),
            "held_back": values["held_back"],
        }


def towards(network: nn.Module, classes: Tensor, sign: float, least: float = math.inf) -> Objective:
    """Return what an attack on a joint model climbs: f_c, or -f_c.

    The unit steps are those of every falling or rising function of f_c, of both forms of l_BCE.

    Args:
        network: Images to logits.
        classes: int64 [B].
        sign: 1 to raise f_c, -1 to lower it.
        least: Probability of being real above which a row stays where it is; infinity for none.
    """

    def climb(points: Tensor, rows: Tensor) -> Aim:
        level = realness(network(points), classes[rows])
        return Aim(sign * level, level.sigmoid() > least)

    return climb


def joint_losses(logits: Tensor, labels: Tensor, real: int) -> Tensor:
    """Return l_CE + l_BCE of each real image plus those of a generated one, [real].

    Args:
        logits: Answers to `real` real images, then to as many generated ones, [2 real, K].
        labels: Their classes, [2 real].
        real: How many are real.

    Example:
        >>> both = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> round(joint_losses(both, torch.tensor([0, 1]), 1).item() / math.log(2), 4)
        4.0
    """
    classified = F.cross_entropy(logits, labels, reduction="none")
    level = realness(logits, labels)
    told = binary_losses(level[:real], "real"), binary_losses(level[real:], "generated")
    lost: Tensor = classified[:real] + classified[real:] + told[0] + told[1]
    return lost
