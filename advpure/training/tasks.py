"""What a task is: a loss per sample, a fixed validation metric, and what must be stored with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from advpure.base.budget import MAX_DRAWS, MAX_NODES, MAX_SIDE
from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.base.validation import check_value
from advpure.data import RawSplit, load_images
from advpure.networks.weights import LoadedNetwork
from advpure.training.randomness import step_generator
from advpure.training.recipe import Recipe


class Batch(NamedTuple):
    """Training images in [0, 1], float32 [B, C, H, W], and their labels, int64 [B]."""

    images: Tensor
    labels: Tensor

    def to(self, network: nn.Module) -> "Batch":
        """Return the batch on the device of a network."""
        device = next(network.parameters()).device
        return Batch(self.images.to(device), self.labels.to(device))


class Task(ABC):
    """A way to train a network; one subclass a file, called with dataset, settings and teacher.

    The trainer calls `divide`, `initialise` and `start` once, at every step `begin_step`, `losses`
    and `end_step`, and before the weights are stored `conclude` and `facts`. A task that keeps
    tensors of its own from step to step gives them to `state` for the checkpoint.
    """

    metric_name: str = "validation_loss"
    """Name of the validation metric, for the log."""
    held_out: Batch
    """The images that validate."""
    discriminates: bool = False
    """Whether it learns to tell the batch's images from others, which are not augmented."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of every sample, [B]; the trainer minimises the mean."""

    def metric(self, network: nn.Module) -> float:
        """Return the validation metric: the mean score of always the same images and noise."""
        batch = self.held_out.to(network)
        with torch.no_grad():  # a number for the log: nothing differentiates it
            return float(self.score(network, batch, step_generator(0, "validation")).mean())

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return what the validation metric is the mean of, [B]: by default the losses."""
        return self.losses(network, batch, generator)

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what users of the weights must know, JSON values; may replace the task's name."""

    def rate_of(self, network: nn.Module, name: str) -> float:
        """Return the factor on the learning rate of a parameter, 0 for one that stays as it is."""
        return 1.0

    def divide(self, data: RawSplit) -> RawSplit:
        """Receive the training images before `start` and return those to train on."""
        return data

    def initialise(self, network: nn.Module, seed: int) -> None:  # noqa: B027
        """Change what training starts from, before the average is made of it."""

    def start(self, network: nn.Module) -> None:  # noqa: B027 - most tasks keep nothing
        """Receive the network before the first step."""

    def begin_step(self, step: int, steps: int) -> None:  # noqa: B027
        """Prepare for a step, counted from 0, of a training of so many."""

    def end_step(self, network: nn.Module) -> None:  # noqa: B027
        """Receive the network after a step."""

    def conclude(self, network: nn.Module, steps: int) -> None:  # noqa: B027
        """Receive the averaged network, after so many steps, before `facts` is asked."""

    def networks(self) -> Sequence[nn.Module]:
        """Return networks that `losses` calls beside the one that is trained, to be compiled."""
        return ()

    def state(self) -> dict[str, Tensor]:
        """Return what has to survive an interruption."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Restore a stored state."""


_Share = Annotated[float, Ge(0), Lt(1)]
_Chance = Annotated[float, Ge(0), Le(1)]
_Positive = Annotated[float, Ge(1e-6), Le(1e6)]
_Weight = Annotated[float, Ge(0), Le(1e6)]
_Levels = tuple[Annotated[float, Le(1e6)], ...]

RULES: Mapping[str, Any] = {
    "sigma_data": _Positive,
    "sigma_min": _Positive,
    "sigma_max": _Positive,
    "p_mean": Annotated[float, Ge(-50), Le(50)],
    "p_std": Annotated[float, Ge(1e-6), Le(50)],
    "label_dropout": _Share,
    "label_smoothing": _Share,
    "sigmas": _Levels,
    "sigma_range": _Levels,
    "noise": _Weight,
    "noises": Annotated[int, Ge(1), Le(MAX_DRAWS)],
    "consistency": _Weight,
    "entropy": _Weight,
    "draws": Annotated[int, Ge(1), Le(MAX_DRAWS)],
    "diversity": _Weight,
    "share": Annotated[float, Gt(0), Le(1)],
    "core_weight": _Positive,
    "nodes": Annotated[int, Ge(2), Le(MAX_NODES)],
    "highest": _Weight,
    "losses": Literal["original", "improved"],
    "first": Annotated[int, Ge(2), Le(MAX_NODES)],
    "last": Annotated[int, Ge(2), Le(MAX_NODES)],
    "decay": Annotated[float, Gt(0), Lt(1)],
    "decay_start": Annotated[float, Gt(0), Lt(1)],
    "decay_end": Annotated[float, Gt(0), Lt(1)],
    "decay_sharpness": _Positive,
    "temperature": _Positive,
    "contrastive": _Weight,
    "trajectory": Literal["noise", "ode"],
    "one_level": _Weight,
    "crop": Annotated[float, Gt(0), Le(1)],
    "jitter": tuple[Annotated[float, Ge(0), Le(1)], ...],
    "jitter_share": _Chance,
    "grey": _Chance,
    "blur": tuple[_Chance, ...],
    "solarize": _Chance,
    "mirror": bool,
    "layer_decay": Annotated[float, Gt(0), Le(1)],
    "train_encoder": bool,
    "train_head": bool,
    "teacher_bfloat16": bool,
    "distance": Literal["lpips", "l1", "l2", "huber"],
    "lpips_weights": str,
    "lpips_size": Annotated[int, Ge(0), Le(MAX_SIDE)],
    "lpips_bfloat16": bool,
    "denoiser": str,
    "guide": str,
    "certified": str,
    "edm": str,
    "norm": Literal["linf", "l2"],
    "eps": str | float,
    "attack_steps": Annotated[int, Ge(1), Le(MAX_DRAWS)],
    "step_size": _Weight,
    "start": _Weight,
    "bounded": bool,
    "held_back": Annotated[int, Ge(1)],
    "generator": str,
    "labeller": str,
    "attacked": bool,
    "real_eps": _Positive,
    "real_steps": Annotated[int, Ge(1), Le(MAX_DRAWS)],
    "real_step_size": _Positive,
    "fake_eps": _Positive,
    "fake_step_size": _Positive,
    "fake_steps": Annotated[int, Ge(1), Le(MAX_DRAWS)],
    "fake_steps_every": Annotated[int, Ge(1)],
    "fake_steps_added": Annotated[int, Ge(0), Le(MAX_DRAWS)],
    "fake_steps_most": Annotated[int, Ge(1), Le(MAX_DRAWS)],
    "early_stop": bool,
    "direction": Literal["unit", "raw"],
    "extra": bool,
    "fake_attack": Literal["raise", "lower"],
    "l0_form": Literal["generated", "real"],
}
"""What the settings of all losses may be: a name means the same in every task."""


def take(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the loss settings of a recipe, and check those that are given by `RULES`.

    Raises:
        BadInput: for a setting that the task does not have, or a value that breaks its rule.

    Example:
        >>> take({"nodes": 9}, {"nodes": 18, "highest": 0.0})
        {'nodes': 9, 'highest': 0.0}
        >>> take({"highest": True}, {"highest": 0.0})
        Traceback (most recent call last):
        ...
        advpure.BadInput: highest True is not a number; write 0.03 or 8/255
    """
    unknown = sorted(set(settings) - set(defaults))
    if unknown:
        raise BadInput(
            f"loss setting {unknown[0]!r}", "is unknown", f"use {', '.join(defaults) or 'none'}"
        )
    # A default may be empty where the task then says what is missing.
    given = {
        name: value if value == "" == defaults[name] else check_value(value, RULES[name], name)
        for name, value in settings.items()
    }
    # An empty list only makes room for the other kind of levels, where a base has the first.
    levels = {name: value for name, value in given.items() if RULES[name] is _Levels}
    if levels and not any(levels.values()):
        name = next(iter(levels))
        raise BadInput(f"{name} []", "names no level", "leave it out, or list levels")
    return {**defaults, **given}


def validation_batch(dataset: str, limit: int) -> Batch:
    """Return the first test images of a data set; they only measure, nothing is chosen by them."""
    images, labels, _ = load_images(dataset)
    return Batch(images[:limit], labels[:limit])


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which images are classified correctly, 0.0 or 1.0, [B]."""
    return (logits.argmax(dim=1) == labels).float()


def fixed_classifier(name: str, dataset: str) -> nn.Module:
    """Load a classifier whose parameters stay as they are: a shipped name or a weights file."""
    from advpure.loading import load_judge

    return load_judge(dataset, name)[0].eval().requires_grad_(False)


TASKS: Registry[Callable[..., Task]] = Registry("task")
"""What a recipe's `task` means. A new one is one file and one line here."""
_HERE = "advpure.training"
TASKS.register("edm", f"{_HERE}.edm:EDMTask", about="denoiser by EDM's loss")
TASKS.register(
    "consistency", f"{_HERE}.consistency:ConsistencyTask", about="distillation into one step"
)
TASKS.register(
    "consistency-training",
    f"{_HERE}.consistency_training:ConsistencyTrainingTask",
    about="one-step model without a teacher, original or improved",
)
TASKS.register(
    "consistency-tuning",
    f"{_HERE}.consistency_tuning:ConsistencyTuningTask",
    about="one-step model pulled towards clean images",
)
TASKS.register(
    "consistency-unconditional",
    f"{_HERE}.consistency_unconditional:UnconditionalTask",
    about="unconditional one-step model from a class-conditional one",
)
TASKS.register("classifier", f"{_HERE}.classifier:ClassifierTask", about="cross-entropy")
TASKS.register(
    "classifier-denoised",
    f"{_HERE}.classifier_denoised:DenoisedClassifierTask",
    about="classifier fine-tuned behind a denoiser",
)
TASKS.register(
    "classifier-smoothed",
    f"{_HERE}.classifier_smoothed:SmoothedClassifierTask",
    about="classifier under Gaussian noise, with or without consistency regularisation",
)
TASKS.register(
    "classifier-adversarial",
    f"{_HERE}.adversarial:AdversarialTask",
    about="classifier trained on attacked images, l-inf or l2",
)
TASKS.register(
    "joint",
    f"{_HERE}.joint:JointTask",
    about="joint classifier and discriminator, trained on attacked images",
)
TASKS.register(
    "selector",
    f"{_HERE}.selector:SelectorTask",
    about="selector between a certified classifier and an accurate one (re-derived)",
)
TASKS.register(
    "calibration",
    f"{_HERE}.calibration:CalibrationTask",
    about="denoiser fine-tuned through a classifier (re-derived)",
)
TASKS.register(
    "representation",
    f"{_HERE}.representation:RepresentationTask",
    about="representation that is consistent over noise levels, without labels",
)
TASKS.register(
    "representation-tuning",
    f"{_HERE}.representation_tuning:RepresentationTuningTask",
    about="classifier that takes the noise level, from such a representation",
)
TASKS.register(
    "levelled",
    f"{_HERE}.representation_tuning:RepresentationTuningTask",
    about="classifier that takes the noise level, from nothing",
)
NEEDS_TEACHER = {
    "consistency",
    "consistency-tuning",
    "consistency-unconditional",
    "classifier-denoised",
    "calibration",
    "representation-tuning",
    "joint",
}
"""Tasks that start from a trained network."""
MAY_HAVE_TEACHER = {"classifier-adversarial", "edm", "consistency-training"}
"""Tasks that start from a trained network where the recipe names one."""
DENOISES = {
    "edm",
    "consistency",
    "consistency-training",
    "consistency-tuning",
    "consistency-unconditional",
    "calibration",
    "representation",
    "representation-tuning",
    "levelled",
}
"""Tasks whose network takes images and noise levels; those of the others take images alone."""


def make_task(recipe: Recipe, teacher: LoadedNetwork | None) -> Task:
    """Build the task of a recipe.

    Args:
        recipe: The recipe.
        teacher: The network to start from, where the task needs one.

    Raises:
        BadInput: for an unknown task, when there is a teacher without use or none in need, and for
            a shift that would give a discriminator away what is real.
    """
    make = TASKS.get(recipe.task)
    needed, has = recipe.task in NEEDS_TEACHER, teacher is not None
    if needed != has and recipe.task not in MAY_HAVE_TEACHER:
        raise BadInput(
            f"teacher {recipe.teacher} of task {recipe.task}",
            f"is for {', '.join(sorted(NEEDS_TEACHER))} alone, which need one",
            "mend the recipe",
        )
    task = make(recipe.dataset, recipe.loss, teacher)
    if task.discriminates and recipe.shift:
        rule = "moves real images alone, which tells them from generated ones"
        raise BadInput(f"shift {recipe.shift} of task {recipe.task}", rule, "leave it out")
    return task
