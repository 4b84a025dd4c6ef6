"""One training loop for every task: resumable, averaged, logged, deterministic.

Step k draws everything (which images, augmentation, noise, dropout) from a generator that depends
on (seed, k) alone, so a run that was stopped or killed and resumed ends with the same bits as an
uninterrupted one, at the same thread count. A checkpoint is written whole or not at all.
"""

import copy
import csv
import dataclasses
import functools
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.stopping import deferred
from advpure.base.storage import TRAINING_FILE, atomic_path
from advpure.base.validation import whole
from advpure.data import RawSplit
from advpure.networks.layers import seed_dropout
from advpure.networks.weights import LoadedNetwork, write_torch
from advpure.training.augment import flip_images, mirror, shift_images
from advpure.training.checkpoint import check_members, check_same_names, read_checkpoint
from advpure.training.optimization import make_optimizer, rate_factor
from advpure.training.order import epoch_batch
from advpure.training.precision import (
    InBfloat16,
    capture,
    captured_where_possible,
    fast_bfloat16,
)
from advpure.training.randomness import integers, step_generator
from advpure.training.recipe import Recipe, defaults
from advpure.training.tasks import Batch, Task

_UNTIMED, _TIMED = 8, 16
"""Steps before those that are timed to plan a training, and those."""
_NEARLY = 0.95


class Trainer:
    """The state of a training: network, average, optimiser, step, log.

    Args:
        recipe: What to do.
        task: The loss and the metric.
        network: Trained in place.
        data: Training images.
        folder: Where `checkpoint.pt` and `log.csv` live.
        device: Where to compute.
        teacher: The SHA-256 sum of the teacher's state, if there is one; a checkpoint of another
            one is not gone on with.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        network: nn.Module,
        data: RawSplit,
        folder: Path,
        device: str = "cpu",
        teacher: str | None = None,
    ) -> None:
        """Set everything up for step 0; `resume` continues from a checkpoint."""
        self.recipe, self.task, self.data, self.folder = recipe, task, data, folder
        self.device, self.teacher = torch.device(device), teacher
        self.autocast = recipe.autocast and fast_bfloat16(self.device)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network = network.to(self.device).to(memory_format=layout).requires_grad_(True)
        task.initialise(self.network, recipe.seed)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.rates, self.optimizer = make_optimizer(
            recipe, self.network, functools.partial(task.rate_of, self.network)
        )
        task.start(self.network)
        if recipe.compiled:
            for each in (self.network, *task.networks()):
                capture(each)
        self.step = 0
        self.begun = 0
        self.seconds = 0.0
        self.loss_sum, self.loss_count = 0.0, 0
        self.rows: list[list[float]] = []

    @property
    def checkpoint(self) -> Path:
        """Where the state is stored."""
        return self.folder / TRAINING_FILE

    def run(self, until: int, *, save_seconds: float = 60.0, progress: bool = False) -> None:
        """Train up to a step and save.

        Args:
            until: The step to stop at.
            save_seconds: Time between checkpoints.
            progress: Whether to draw a progress bar.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, once the current step is finished and saved.
            BadInput: when the loss stops being finite; the last checkpoint is kept.
        """
        started, saved = time.monotonic() - self.seconds, time.monotonic()
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        shown = Progress(*columns, console=console, disable=not progress)
        with shown as bar, deferred() as stop, captured_where_possible(self.recipe.compiled):
            line = bar.add_task(self.recipe.name, total=until, completed=self.step)
            while self.step < until and stop.number is None:
                loss = self._one_step()
                self.seconds = time.monotonic() - started
                if self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps:
                    self._log()
                if time.monotonic() - saved > save_seconds:
                    self.save()
                    saved = time.monotonic()
                bar.update(line, completed=self.step, description=f"{self.recipe.name} {loss:.4f}")
            self.save()
        stop.interrupt()

    def plan(self, seconds: float) -> int:
        """Take a few steps, and set the recipe's number of steps to what a time allows.

        Args:
            seconds: Time of the whole training, that of earlier runs included.

        Returns:
            That number of steps, at least those that were taken. A training that has used nearly
            all of the time takes no more.
        """
        each, counts = 1.0, (_UNTIMED, _TIMED) if self.seconds < _NEARLY * seconds else ()
        for count in counts:  # the first ones compile and allocate
            begun = time.monotonic()
            with captured_where_possible(self.recipe.compiled):
                for _ in range(count):
                    self._one_step()
            each = (time.monotonic() - begun) / count
            self.seconds += each * count
        steps = self.step + (max(0, int((seconds - self.seconds) / each)) if counts else 0)
        self.recipe = dataclasses.replace(self.recipe, steps=steps)
        return steps

    def _one_step(self) -> float:
        """Draw a batch, follow its gradient, move the average."""
        recipe = self.recipe
        generator = step_generator(recipe.seed, "step", self.step)
        batch = self._draw(generator)
        for peak, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            group["lr"] = peak * rate_factor(recipe, self.step, self.begun)
        self.task.begin_step(self.step, recipe.steps)
        self.network.train()
        seed_dropout(self.network, generator)
        network = InBfloat16(self.network, self.autocast)
        loss = self.task.losses(network, batch, generator).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BadInput(
                f"loss {value} at step {self.step}", "is not finite", "lower learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.step >= recipe.clip_from:
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self.optimizer.step()
        self.step += 1
        self.task.end_step(self.network)
        self._move_average()
        self.loss_sum += value
        self.loss_count += 1
        return value

    def _draw(self, generator: torch.Generator) -> Batch:
        """Choose images and augment them."""
        recipe, size = self.recipe, len(self.data.pixels)
        mirrored: Tensor | None = None
        if recipe.order == "epochs":
            index, mirrored = epoch_batch(recipe.seed, self.step, recipe.batch, size)
        else:
            index = integers(0, size, (recipe.batch,), generator)
        images = self.data.pixels[index].float() / self.data.full_scale
        images = shift_images(images, recipe.shift, generator, reflect=recipe.reflect)
        if recipe.flip and mirrored is not None:
            images = mirror(images, mirrored)
        elif recipe.flip:
            images = flip_images(images, generator)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        moved = images.to(self.device).contiguous(memory_format=layout)
        return Batch(moved, self.data.labels[index].to(self.device))

    def _move_average(self) -> None:
        """Move the exponential average (parameters and float buffers) towards the network."""
        recipe = self.recipe
        half_life = min(recipe.ema_half_life, recipe.ema_ramp * self.step * recipe.batch)
        keep = 0.5 ** (recipe.batch / half_life)
        current = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1.0 - keep)
            else:
                value.copy_(current[name])

    def _log(self) -> None:
        """Validate the average and add a line to the log."""
        metric = self.task.metric(self.average)
        mean = self.loss_sum / self.loss_count
        self.rows.append([self.step, mean, round(self.seconds, 3), metric])
        self.loss_sum, self.loss_count = 0.0, 0
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", "loss", "seconds", self.task.metric_name])
        writer.writerows(self.rows)
        with atomic_path(self.folder / "log.csv") as scratch:
            scratch.write_text(text.getvalue())

    def state(self) -> dict[str, Any]:
        """Return everything that a run goes on from; see `advpure.training.checkpoint`."""
        return {
            "recipe": json.dumps(dataclasses.asdict(self.recipe)),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "task": self.task.state(),
            "step": self.step,
            "begun": self.begun,
            "teacher": self.teacher,
            "seconds": self.seconds,
            "loss": [self.loss_sum, self.loss_count],
            "rows": self.rows,
        }

    def save(self) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            StorageFull: when the disk is full; the last checkpoint is kept.
        """
        write_torch(self.checkpoint, self.state())

    def resume(self) -> bool:
        """Continue from the checkpoint of the folder, if there is one.

        Returns:
            Whether there was one.

        Raises:
            BadInput: when it is damaged, has members that do not fit, or belongs to a recipe that
                differs in more than steps; the training is as it was.
        """
        path = self.checkpoint
        if not path.is_file():
            return False
        own = self.state()
        state = read_checkpoint(path, own)
        self._check_recipe(f"checkpoint {path}", state["recipe"])
        if state["teacher"] != self.teacher:
            raise BadInput(
                f"checkpoint {path}",
                "was taught by other weights of that name",
                "choose another folder or start again without resuming",
            )
        check_members(path, state, own, self.optimizer)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.task.restore(state["task"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.begun = state["begun"]
        self.loss_sum, self.loss_count = state["loss"]
        return True

    def go_on_from(self, weights: LoadedNetwork, name: str) -> None:
        """Go on from exported weights, where the checkpoint is gone.

        Network and average start from the stored parameters, at the step that they were stored
        at; the optimiser starts anew and warms up.

        Args:
            weights: What an earlier training of the same recipe exported.
            name: How to call it in a message.

        Raises:
            BadInput: when it belongs to a recipe that differs in more than steps.
        """
        recipe = weights.metadata.get("recipe")
        made = recipe if isinstance(recipe, dict) else {}
        self._check_recipe(name, made, "give weights of this recipe")
        state = weights.network.state_dict()
        check_same_names(state, self.network.state_dict(), name)
        self.network.load_state_dict(state)
        self.average.load_state_dict(state)
        self.step = self.begun = whole(weights.metadata.get("steps"), f"steps of {name}")

    def restarts(self) -> dict[str, int]:
        """Return the step at which the optimiser started anew, if it ever did."""
        return {"optimizer_restarted_at_step": self.begun} if self.begun else {}

    def _check_recipe(
        self,
        what: str,
        recipe: dict[str, Any],
        fix: str = "choose another folder or start again without resuming",
    ) -> None:
        """Refuse a checkpoint or weights that another recipe made."""
        own = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        recipe = {**json.loads(json.dumps(defaults())), **recipe}
        changed = [name for name in own if name != "steps" and own[name] != recipe.get(name)]
        if changed:
            raise BadInput(
                what, f"was made with another {changed[0]} ({recipe.get(changed[0])!r})", fix
            )
