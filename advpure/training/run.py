"""Train a network from a recipe: `advpure train NAME` and `advpure.training.train(NAME)`."""

import dataclasses
import inspect
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advpure.base.alone import alone
from advpure.base.devices import plain_defaults
from advpure.base.errors import BadInput
from advpure.base.storage import TRAINING_FILE, refuse_other_use
from advpure.base.validation import Range, instance, number, whole
from advpure.data import DATASETS, dataset_info
from advpure.models import list_models, model_path
from advpure.networks import ConvNet, RepresentationNetwork, build_network
from advpure.networks.representation import carry_over
from advpure.networks.weights import (
    LoadedNetwork,
    all_images,
    load_network,
    sha256,
    state_sha256,
)
from advpure.training.checkpoint import check_same_names
from advpure.training.export import Curve, export_network
from advpure.training.labelled import average_tokens, with_tokens
from advpure.training.quality import Rate
from advpure.training.randomness import step_generator
from advpure.training.recipe import Recipe, list_recipes, load_recipe
from advpure.training.tasks import DENOISES, make_task
from advpure.training.trainer import Trainer

_FIT = 5000
"""How many training images the fixed first layer of a classifier is fitted to."""


class TrainResult(NamedTuple):
    """What a training made.

    Attributes:
        name: The recipe.
        weights: The safetensors file; its card lies beside it.
        log: The CSV log.
        steps: Steps done, all runs together.
        images_seen: Training images drawn.
        seconds: Time spent, all runs together.
        quality: Measured rates, possibly none.
    """

    name: str
    weights: Path
    log: Path
    steps: int
    images_seen: int
    seconds: float
    quality: list[Rate]


@plain_defaults()
def train(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = True,
    steps: int | None = None,
    until: int | None = None,
    minutes: float | None = None,
    teacher: str | None = None,
    weights: str | None = None,
    device: str = "cpu",
    save_seconds: float = 60.0,
    progress: bool = True,
) -> TrainResult:
    """Train a network, or go on where an earlier call stopped.

    Args:
        recipe: Name of a recipe, path of a TOML file, or a recipe. Its teacher, and the denoiser
            `edm` of its loss, are trained first where they do not ship but have a recipe, in the
            folder beside `out`.
        out: Folder for checkpoint, log, weights and card; `runs/train/NAME` when None.
        resume: Whether to continue from the checkpoint in the folder; False starts again.
        steps: Replaces the recipe's number of steps (and with it the length of its decay).
        until: Stops at this step, from 1 to the number of steps, or at once when it is reached
            already, and exports what there is; the same call without it goes on. None goes to the
            end.
        minutes: Replaces the recipe's number of steps by what this machine does in so many minutes,
            above 0, measured on the first steps; not beside steps or until.
        teacher: Replaces the recipe's teacher: a shipped name or a weights file.
        weights: What to go on from where the folder has no checkpoint: the weights that an
            earlier training of the recipe exported, a shipped name or a file. They bring the
            number of steps; the optimiser starts anew, with a warm-up.
        device: Where to compute.
        save_seconds: Time between checkpoints.
        progress: Whether to draw a progress bar.

    Returns:
        TrainResult: Paths and measured quality.

    Raises:
        BadInput: for a bad recipe, data set, teacher or checkpoint, or a folder of another verb or
            one that another training writes.
        KeyboardInterrupt: after Ctrl-C, when the state is saved.
    """
    instance(recipe, (str, Path, Recipe), "recipe", "name one, or a TOML file")
    instance(out, (str, Path, type(None)), "out", "name a folder")
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    save_seconds = number(save_seconds, "save_seconds", Range(least=0))
    if steps is not None:
        plan = dataclasses.replace(plan, steps=steps)
    if teacher is not None:
        plan = dataclasses.replace(plan, teacher=teacher)
    if until is not None:
        until = whole(until, "until", 1, plan.steps)
    if minutes is not None:
        minutes = number(minutes, "minutes", Range(above=0))
        if steps is not None or until is not None:
            raise BadInput(f"minutes {minutes:g}", "leave no choice of steps", "leave one out")
    folder = Path(out) if out is not None else Path("runs") / "train" / plan.name
    refuse_other_use(folder, TRAINING_FILE)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"folder {folder}", "is a file", "choose another folder")
    teacher_made, denoiser_made = (
        _made_first(name, folder, device, save_seconds, progress)
        for name in (plan.teacher, plan.loss.get("edm"))
    )
    start, origin = _teacher(plan, teacher_made)
    told = plan
    if denoiser_made is not None:
        told = dataclasses.replace(plan, loss={**plan.loss, "edm": str(denoiser_made)})
        origin["denoiser"] = plan.loss["edm"]
    task = make_task(told, start)
    network, config = _network(plan, start)
    _check_fits(plan, network)
    data = task.divide(DATASETS.get(plan.dataset).read("train"))
    if isinstance(network, ConvNet) and start is None:
        network.fit(data.pixels[:_FIT].float() / data.full_scale)
    taught_by = None if start is None else state_sha256(start.network)
    base = _base(plan, start)
    trainer = Trainer(plan, task, network, data, folder, device, taught_by)
    if plan.autocast and not trainer.autocast:
        _note("this processor is slow in bfloat16, which the recipe names: float32 takes its place")
    with alone(folder):
        resumed = resume and trainer.resume()
        if weights is not None and resumed:
            _note(f"{folder} has a checkpoint, at step {trainer.step}: {weights} was not read")
        elif weights is not None:
            trainer.go_on_from(load_network(_weights_path(weights)), f"weights {weights}")
            trainer.save()
        if minutes is not None:
            plan = dataclasses.replace(plan, steps=trainer.plan(60.0 * minutes))
        last = plan.steps if until is None else until
        if trainer.step > plan.steps:
            raise BadInput(
                f"steps {plan.steps}",
                f"are fewer than the {trainer.step} that the training in {folder} has taken",
                f"use {trainer.step} or more, or start again without resuming",
            )
        if trainer.step > last:
            _note(f"step {last} has passed: the weights are those of step {trainer.step}")
        trainer.run(last, save_seconds=save_seconds, progress=progress)
        average = trainer.average.to("cpu")
        task.conclude(average, trainer.step)
        exported, quality = export_network(
            plan,
            average,
            folder,
            config=config,
            facts={**task.facts(), **origin, **trainer.restarts()},
            steps=trainer.step,
            curve=Curve(task.metric_name, trainer.rows),
            base=base,
        )
    return TrainResult(
        plan.name,
        exported,
        folder / "log.csv",
        trainer.step,
        trainer.step * plan.batch,
        trainer.seconds,
        quality,
    )


def _note(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=3)


def _check_fits(plan: Recipe, network: nn.Module) -> None:
    """Refuse a network that cannot take the images of its data set, or has too few answers.

    Raises:
        BadInput: with the first line of what goes wrong.
    """
    info = dataset_info(plan.dataset)
    if plan.shift >= min(info.shape[1:]):
        raise BadInput(
            f"shift {plan.shift}", f"is no less than the side of {info.shape}", "lower it"
        )
    names = [name for name, _ in network.named_parameters()]
    parts = {part for name in names for part in name.split(".")}
    if not set(plan.trained) <= parts:
        missing = next(part for part in plan.trained if part not in parts)
        words = sorted(part for part in parts if not part.isdigit())
        rule = f"is no part of the names of parameters of the {plan.architecture}"
        raise BadInput(f"trained {missing!r}", rule, f"use {', '.join(words)}")
    channels = getattr(getattr(network, "config", None), "image_channels", info.shape[0])
    if channels != info.shape[0]:
        raise BadInput(
            f"network of {channels} image channels",
            f"does not fit {plan.dataset} images {list(info.shape)}",
            "mend image_channels in [network]",
        )
    side = getattr(getattr(network, "config", None), "image_size", info.shape[1])
    if side not in info.shape[1:]:
        raise BadInput(
            f"network of image size {side}",
            f"does not fit {plan.dataset} images {list(info.shape)}",
            "mend image_size in [network]",
        )
    denoiser = len(inspect.signature(network.forward).parameters) > 1  # images and noise levels
    if denoiser != (plan.task in DENOISES):
        takes = "images and noise levels" if denoiser else "images alone"
        raise BadInput(
            f"architecture {plan.architecture}",
            f"takes {takes}, and task {plan.task} trains another kind",
            "mend architecture or task",
        )
    inputs = [torch.zeros(1, *info.shape), *([torch.zeros(1)] if denoiser else [])]
    try:
        with torch.no_grad():  # only the shape of the answer is looked at
            answer: Tensor = network.eval()(*inputs)
    except (RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"network of {plan.name}",
            f"does not fit {plan.dataset} images {list(info.shape)} ({reason[:100]})",
            "mend [network]",
        ) from None
    config = getattr(network, "config", None)
    classes = getattr(config, "classes", 0) if denoiser else answer.shape[1]
    allowed = (0, 1, len(info.classes)) if denoiser else (len(info.classes),)
    if classes not in ((2,) if plan.task == "selector" else allowed):
        raise BadInput(
            f"network of {classes} classes",
            f"does not fit the {len(info.classes)} classes of {plan.dataset}",
            "mend classes in [network]",
        )


def _made_first(
    name: object, folder: Path, device: str, save_seconds: float, progress: bool
) -> Path | None:
    """Train a network that does not ship but has a recipe, in the folder beside; None for others.

    So a model of several stages is made by one command, which goes on where it stopped.
    """
    if not isinstance(name, str) or name in list_models() or name not in list_recipes():
        return None
    beside = folder.parent / name
    return train(
        name, out=beside, device=device, save_seconds=save_seconds, progress=progress
    ).weights


def _teacher(plan: Recipe, path: Path | None = None) -> tuple[LoadedNetwork | None, dict[str, Any]]:
    """Load the teacher, and say which file it was and how many images its stages drew."""
    if plan.teacher is None:
        return None, {}
    path = path or _weights_path(plan.teacher)
    teacher = load_network(path)
    origin: dict[str, Any] = {"teacher": plan.teacher, "teacher_sha256": sha256(path)}
    if all_images(teacher.metadata):
        origin["images_seen_before"] = all_images(teacher.metadata)
    return teacher, origin


def _base(plan: Recipe, start: LoadedNetwork | None) -> str | None:
    """Return the shipped network that the weights need not repeat, where parts of it are trained.

    Where the teacher repeats nothing of a base of its own, that is the base.
    """
    if not plan.trained or start is None:
        return None
    name = start.metadata.get("base", {"name": plan.teacher})["name"]
    return str(name) if name in list_models() else None


def _weights_path(name: str) -> Path:
    """Return the file of a shipped name, or the file that is named."""
    given = Path(name)
    return given if given.suffix == ".safetensors" else model_path(name)


def _network(plan: Recipe, teacher: LoadedNetwork | None) -> tuple[nn.Module, dict[str, object]]:
    """Build the network: from the seed, or as a copy of the teacher."""
    if teacher is None:
        generator = step_generator(plan.seed, "initial weights")
        return build_network(plan.architecture, plan.network, generator), dict(plan.network)
    if teacher.metadata["architecture"] != plan.architecture:
        raise BadInput(
            f"teacher {plan.teacher} of architecture {teacher.metadata['architecture']}",
            f"is no {plan.architecture}",
            "mend architecture or teacher",
        )
    config = {**teacher.metadata["config"], **plan.network}
    generator = step_generator(plan.seed, "initial weights")
    network = build_network(plan.architecture, config, generator)
    state = teacher.network.state_dict()
    if isinstance(network, RepresentationNetwork):
        state = carry_over(state, network)
    if plan.network.get("classes") == 1:
        state = average_tokens(state)
    state = with_tokens(state, network.state_dict())
    check_same_names(state, network.state_dict(), f"teacher {plan.teacher}")
    network.load_state_dict(state)
    return network, config
