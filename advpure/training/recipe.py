"""A training recipe: everything that decides the result of a training, as a small TOML file."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt

from advpure.base.budget import MAX_BATCH, MAX_SIDE
from advpure.base.documents import check_plain, parse_toml, read_text
from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.base.validation import name as check_name
from advpure.base.validation import shown, validate, words

OptimizerName = Literal["adam", "adamw", "radam", "sgd"]
Decay = Literal["constant", "cosine", "linear"]
Order = Literal["random", "epochs"]
_TABLES = ("network", "loss")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: Name of the recipe and of the weights file that it makes.
        about: One line for lists.
        task: Which loss, a name in `advpure.training.tasks.TASKS`.
        dataset: Name of the data set; its training split is used.
        architecture: Name in `advpure.networks.ARCHITECTURES`.
        network: Settings of the architecture; a student changes its teacher's by them.
        loss: Settings of the task, see the modules of the tasks.
        teacher: Shipped model or weights file that the network starts as a copy of.
        trained: Parts of the network that are trained, each a part of the dotted names of its
            parameters, such as `modulate`; the others stay as they are. Empty for all.
        steps: Optimiser steps.
        batch: Images per step.
        seed: Decides initial weights, order, noise and augmentation.
        optimizer: adam, adamw, radam or sgd (Nesterov).
        momentum: Momentum of sgd.
        learning_rate: Peak learning rate.
        bias_rate: Factor on the learning rate of offsets (parameters of one dimension); their
            weight decay is divided by it, so that the decay of a step is that of the weights.
        weight_decay: Decoupled for adamw, added to the gradient otherwise.
        warmup: Steps of linear growth at the start.
        decay: Constant, or cosine or linear to zero over `steps`.
        clip: Largest global gradient norm.
        clip_from: First step, from 0, whose gradient is clipped.
        ema_half_life: Images after which the weight average has forgotten half.
        ema_ramp: The half-life is at most this share of the images seen so far.
        order: `random` draws every image anew; `epochs` goes through all images before any of
            them comes again, and drops the incomplete batch at the end.
        shift: Largest random translation, in pixels.
        reflect: Whether what moves in mirrors the image; otherwise it has the lowest value.
        flip: Whether images are mirrored left to right: at random, or with `epochs` every other
            time that an image comes.
        autocast: Whether the network runs in bfloat16 (the loss stays in float32) where the device
            is fast in it.
        channels_last: Whether convolutions use the channels-last layout.
        compiled: Whether the network is captured by torch.compile: into kernels on a GPU, into the
            same operations elsewhere. What cannot be captured runs as it is.
        validate_every: Steps between validations and lines of the log.
    """

    name: str
    about: str
    task: str
    dataset: str
    architecture: str
    steps: Annotated[int, Ge(1)]
    batch: Annotated[int, Ge(1), Le(MAX_BATCH)]
    seed: Annotated[int, Ge(0)]
    network: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    trained: tuple[str, ...] = ()
    optimizer: OptimizerName = "adam"
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    learning_rate: Annotated[float, Ge(1e-12), Le(1e4)] = 1e-3
    bias_rate: Annotated[float, Ge(1e-6), Le(1e6)] = 1.0
    weight_decay: Annotated[float, Ge(0), Le(1e4)] = 0.0
    warmup: Annotated[int, Ge(0)] = 100
    decay: Decay = "cosine"
    clip: Annotated[float, Ge(1e-12), Le(1e12)] = 1.0
    clip_from: Annotated[int, Ge(0)] = 0
    ema_half_life: Annotated[int, Ge(1)] = 20_000
    ema_ramp: Annotated[float, Ge(1e-9), Le(1e9)] = 0.05
    order: Order = "random"
    shift: Annotated[int, Ge(0), Le(MAX_SIDE)] = 0
    reflect: bool = False
    flip: bool = False
    autocast: bool = False
    channels_last: bool = False
    compiled: bool = False
    validate_every: Annotated[int, Ge(1)] = 200

    def __post_init__(self) -> None:
        """Refuse values outside their range, and a name that could lead out of a folder.

        Raises:
            BadInput: naming the setting and the rule.
        """
        validate(self)
        check_name(self.name, "name")
        if self.optimizer != "sgd" and self.momentum != defaults()["momentum"]:
            rule = f"means nothing to optimizer {self.optimizer}"
            raise BadInput(f"momentum {self.momentum:g}", rule, "leave it out, or use sgd")
        if self.trained and self.teacher is None:
            rule = "are parts of a network that is trained on, and there is no teacher"
            raise BadInput(f"trained {', '.join(self.trained)}", rule, "leave it out, or name one")
        if self.reflect and not self.shift:
            raise BadInput("reflect", "means nothing without a shift", "leave it out, or shift")
        if self.optimizer == "sgd" and not self.momentum:
            raise BadInput("momentum 0 of sgd", "leaves nothing to Nesterov", "use for example 0.9")
        for table in _TABLES:
            settings = getattr(self, table)
            if not isinstance(settings, Mapping) or not all(isinstance(k, str) for k in settings):
                raise BadInput(
                    f"{table} {shown(settings)}", "is no table", f"write [{table}] and its settings"
                )
            check_plain(dict(settings), table)

    def trains(self, parameter: str) -> bool:
        """Tell whether a parameter is trained, by its name."""
        return not self.trained or not set(self.trained).isdisjoint(parameter.split("."))


def defaults() -> dict[str, Any]:
    """Return the settings that a recipe may leave out, with the values that they then have."""
    return {
        entry.name: entry.default
        for entry in dataclasses.fields(Recipe)
        if entry.default is not dataclasses.MISSING
    }


def _folder() -> Path:
    return Path(str(resources.files("advpure.training.recipes")))


def list_recipes() -> dict[str, str]:
    """Return the names of the recipes in the package, with a line about each.

    Example:
        >>> "digits-edm" in list_recipes()
        True
    """
    return {file.stem: str(_read(file)[1]["about"]) for file in sorted(_folder().glob("*.toml"))}


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe of the package, or a TOML file of the same form.

    A recipe may start from another one of the package, or from a file beside it, that `base`
    names: what it does not say itself is taken from there, in its tables too; the table of the
    loss only where the task is the same.

    Raises:
        BadInput: for an unknown name, a file that is not TOML, an unknown or missing setting, or a
            warm-up that the file gives longer than the training.
    """
    path, values = _read(name)
    fields = dataclasses.fields(Recipe)
    unknown = sorted(set(values) - {entry.name for entry in fields})
    if unknown:
        names = ", ".join(entry.name for entry in fields)
        raise BadInput(f"setting {unknown[0]!r} of {path.name}", "is unknown", f"use {names}")
    missing = [
        entry.name
        for entry in fields
        if entry.name not in values and entry.name not in defaults() and entry.name not in _TABLES
    ]
    if missing:
        raise BadInput(f"recipe {path}", f"is incomplete, without {', '.join(missing)}", "add them")
    recipe = Recipe(**values)
    if "warmup" in values and recipe.warmup > recipe.steps:
        rule = f"is longer than the training, {recipe.steps} in all"
        raise BadInput(f"warmup {recipe.warmup} of {path.name}", rule, "warm up less")
    return recipe


def _read(name: str | Path, depth: int = 0) -> tuple[Path, dict[str, Any]]:
    """Read the settings of a recipe, those of its base included."""
    path = Path(name)
    if path.suffix != ".toml":
        known: Registry[Path] = Registry("recipe")
        for file in sorted(_folder().glob("*.toml")):
            known.register(file.stem, file)
        path = known.get(str(name))
    values = parse_toml(read_text(path, f"recipe {path}"), f"recipe {path}")
    if "base" not in values:
        return path, values
    base = words(values.pop("base"), f"base of {path.name}")
    if depth == 4:
        raise BadInput(f"recipe {path}", "has too long a line of bases", "shorten it")
    inherited = _read(path.parent / base if base.endswith(".toml") else base, depth + 1)[1]
    if values.get("task", inherited.get("task")) != inherited.get("task"):
        inherited.pop("loss", None)
    for key, value in values.items():
        table = isinstance(value, dict) and isinstance(inherited.get(key), dict)
        inherited[key] = {**inherited[key], **value} if table else value
    return path, inherited
