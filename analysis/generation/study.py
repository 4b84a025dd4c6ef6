"""Generation as a study: images from noise alone, kept in records and written into files."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from advpure.analysis.generation.images import (
    AUTO,
    Generated,
    Generator,
    Pixels,
    check_npz,
    load_generator,
    write_generated,
    write_pictures,
)
from advpure.analysis.generation.samplers import STEPS, Sampler, sampler_chain
from advpure.analysis.study import Columns, Loaded, Report, Session, Shard, Study
from advpure.analysis.subject import Seeded
from advpure.base.budget import check_repeats
from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.devices import check_device
from advpure.base.display import Display, Table
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Flag
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural
from advpure.base.validation import validate
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.core.tiling import check_rows
from advpure.data import dataset_info
from advpure.runs.cost import Cost, peak_memory
from advpure.runs.records import RecordStore, collect_context, source_digests
from advpure.runs.schema import Count, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import mean_interval

MADE = Schema("made", {"steps": Count, "sample": Count}, {"label": int | None, "brightness": float})
"""Of every generated image the class that was asked for, and its mean in [0, 1]."""

PIXELS = Schema("pixels", {"steps": Count, "sample": Count}, {"image": bytes})
"""The images, float32 little-endian [C, H, W] in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class GenerateReport(Report):
    """What was generated.

    Attributes:
        brightness: Steps to the mean brightness of the images, in [0, 1].
        labels: Steps to the number of images of each class; empty without labels.
    """

    brightness: Mapping[int, Estimate]
    labels: Mapping[int, Mapping[int, int]]

    def tree(self) -> dict[str, Any]:
        """Return one row for each number of steps."""
        told = self.settings["evaluations"]
        rows = [
            {
                "steps": steps,
                "evaluations": told[str(steps)],
                "brightness": mean,
                "labels": {str(label): n for label, n in self.labels[steps].items()},
            }
            for steps, mean in self.brightness.items()
        ]
        return {
            "n": min((each.n or 0 for each in self.brightness.values()), default=0),
            "rows": rows,
        }

    def display(self) -> Display:
        """Return how many images there are."""
        s = self.settings
        headline = (
            f"{s['dataset']}, {s['model']} network {s['generator']['name']}, labels "
            f"{s['labels']}, seed {s['randomness']['seed']}: {self.tree()['n']} images"
        )
        lines = [
            [
                str(row["steps"]), str(row["evaluations"]), f"{row['brightness'].value:.4f}",
                str(row["brightness"].n),
            ]
            for row in self.tree()["rows"]
        ]  # fmt: skip
        return Display(headline, (Table(("steps", "evaluations", "brightness", "n"), lines),))


@dataclass(frozen=True, kw_only=True)
class LoadedGenerator(Loaded):
    """A generator that is ready.

    Attributes:
        generator: The network and its sampler.
        steps: Numbers of steps.
        xi: The randomness.
    """

    generator: Generator
    steps: tuple[int, ...]
    xi: RandomnessConfig


@dataclass(frozen=True, kw_only=True)
class Generate(Seeded, Study[LoadedGenerator, GenerateReport]):
    """Generate images from noise alone, into records, an .npz and pictures.

    Image i depends on the seed and on i alone. The same command goes on where a run was
    interrupted.

    Example: advpure generate --dataset digits --model cm --steps 1,2 -n 64 --save made.npz

    Attributes:
        model: Sampler and kind of network: ``cm``, ``edm`` (Heun), ``ddim`` or ``ddpm``.
        dataset: Data set whose shipped network generates; `advpure data` lists them.
        n: Images of each number of steps.
        steps: Steps, a list. Default: 1 of cm, a grid of 18 nodes of edm, 50 of ddim, 1000 of ddpm.
        labels: uniform, none, or a class by name or number. Default: uniform where the network is
            class-conditional, else none.
        at: Of cm: indices of the nodes of its grid of 18, from 0 at the noisiest, e.g. 0,9.
        weights: Weights of the network: a file, a shipped name, or official NAME:FILE.
        scheme: Noise keys: ``hash`` (the published ones) or ``counter`` (without collisions).
        tile: Images per network call, 1 or more; 0: batches as they come. Default: the data set's.
        device: cpu, cuda, cuda:1 or mps.
        seed: Base seed of all noise.
        save: Write images and labels into an .npz; of several numbers of steps into one each,
            NAME-2.npz.
        pictures_in: Write a PNG of every image into a folder, by class and number.
        pixels: What files hold: bytes ``rounded``, bytes ``truncated``, or ``float``.
    """

    verb: ClassVar[str] = "generate"
    doing: ClassVar[str] = "generating"
    tables: ClassVar[tuple[Schema, ...]] = (MADE, PIXELS)
    figure: ClassVar[str] = "advpure.analysis.generation.figure:generated_figure"
    of_the_images: ClassVar[tuple[str, ...]] = ("n",)
    columns: ClassVar[Columns] = {"brightness": {"at": "rows.0.brightness"}}

    model: Sampler = "cm"
    dataset: str = DEFAULT_DATASET
    n: Annotated[Natural, Flag("--n", "-n")] = 64
    steps: tuple[Natural, ...] = ()
    labels: str | int = AUTO
    at: tuple[int, ...] = ()
    weights: str | None = None
    scheme: Scheme = "hash"
    tile: int | None = None
    device: str = "cpu"
    save: Annotated[str | None, Beside()] = None
    pictures_in: Annotated[str | None, Flag("--pictures"), Beside()] = None
    pixels: Annotated[Pixels, Beside()] = "rounded"

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        if len(set(self.steps)) < len(self.steps):
            listed = ",".join(map(str, self.steps))
            raise BadInput(f"steps {listed}", "repeat a number", "give each once")
        check_repeats(self.n * max(len(self.steps), 1), "images")
        if self.model != "cm":
            refuse_idle(self, ("at",), f"means nothing to {self.model}")
        if self.save is not None:
            check_npz(self.save)
        elif self.pictures_in is None:
            refuse_idle(self, ("pixels",), "means nothing without a file", "add --save FILE.npz")

    def load(self) -> LoadedGenerator:
        """Load the network, and lay out every chain once."""
        check_device(self.device)
        generator = load_generator(
            self.model,
            self.dataset,
            labels=self.labels,
            weights=self.weights,
            tile=self.tile,
            at=self.at,
            device=self.device,
        )
        steps = self.steps or (len(self.at) or STEPS[self.model],)
        chains = {k: sampler_chain(self.model, generator.denoiser, k, at=self.at) for k in steps}
        settings = {
            "verb": self.verb,
            "dataset": self.dataset,
            "model": self.model,
            "generator": dict(generator.identity),
            "labels": generator.labels,
            "n": self.n,
            "steps": list(steps),
            "at": list(self.at),
            "evaluations": {str(k): chain.evaluations for k, chain in chains.items()},
            "randomness": {"seed": self.seed, "scheme": self.scheme},
            "tile": generator.tile,
            "device": self.device,
        }
        weights = {"denoiser": generator.identity["sha256"]}
        return LoadedGenerator(
            settings=settings,
            context=collect_context(
                device=self.device,
                tile=generator.tile,
                weights=weights,
                sources=source_digests(sampler_chain, load_generator),
            ),
            samples=range(self.n),
            generator=generator,
            steps=steps,
            xi=RandomnessConfig(self.seed, self.scheme),
        )

    def share(self, loaded: LoadedGenerator, shard: Shard) -> LoadedGenerator:
        """Return every k-th image, from the i-th."""
        return replace(loaded, samples=shared_ids(self.n, shard), shard=shard)

    def total(self, loaded: LoadedGenerator) -> int:
        """Return the number of images."""
        return len(loaded.samples or ()) * len(loaded.steps)

    def cost(self, loaded: LoadedGenerator) -> Cost:
        """Estimate the cost from one tile for each number of steps, the second time it is made."""
        seconds, evaluations = 0.0, 0
        count = len(loaded.samples or ())
        rows = min(loaded.generator.tile or 32, count)
        for steps in loaded.steps:
            taken = 0.0
            for _ in range(2):
                start = time.perf_counter()
                loaded.generator.make(range(rows), steps, loaded.xi)
                taken = time.perf_counter() - start
                if taken > 2.0:
                    break
            seconds += taken * -(-count // rows)
            evaluations += count * loaded.settings["evaluations"][str(steps)]
        peak = peak_memory(torch.device(self.device))
        return Cost(count * len(loaded.steps), evaluations, 0, seconds, peak)

    def measure(self, session: Session[LoadedGenerator]) -> None:
        """Make what is not there yet, batch after batch."""
        loaded, store = session.loaded, session.store
        done: set[tuple[Any, ...]] = store.done(MADE.table)
        count = len(done)
        session.progress(count)
        size = 4 * (loaded.generator.tile or 32)
        size = check_rows(size if session.batch_size is None else session.batch_size)
        for steps in loaded.steps:
            todo = [i for i in loaded.samples or () if (steps, i) not in done]
            for start in range(0, len(todo), size):
                ids = todo[start : start + size]
                made = loaded.generator.make(ids, steps, loaded.xi)
                with store.batch():
                    store.append(PIXELS.table, _pixels(made, steps, ids))
                    store.append(MADE.table, _rows(made, steps, ids))
                count += len(ids)
                session.progress(count)

    @classmethod
    def report(cls, store: RecordStore) -> GenerateReport:
        """Count the images of a run."""
        brightness, labels = {}, {}
        for steps in store.settings["steps"]:
            rows = store.rows(MADE.table, {"steps": steps})
            if not rows:
                continue
            values = {row["sample"]: row["brightness"] for row in rows}
            mean = mean_interval(list(values.values()), within=(0.0, 1.0))
            brightness[steps] = Estimate.of(mean, values)
            counts: dict[int, int] = {}
            for row in rows:
                if row["label"] is not None:
                    counts[row["label"]] = counts.get(row["label"], 0) + 1
            labels[steps] = dict(sorted(counts.items()))
        report = GenerateReport(
            run=store.folder, settings=store.settings, brightness=brightness, labels=labels
        )
        return report.with_notes(*report.to_do(report.tree()["n"]))

    def pictures(
        self, report: GenerateReport, loaded: LoadedGenerator, plot: Path | None
    ) -> dict[str, Any]:
        """Draw the figure and write the files that were asked for."""
        drawn = super().pictures(report, loaded, plot)
        with RecordStore.read(report.run) as store:
            for steps in loaded.steps:
                ids, generated = stored_images(store, steps)
                if self.save is not None:
                    file = _named(self.save, steps, loaded.steps)
                    drawn.setdefault("saved", []).append(
                        str(write_generated(file, generated, self.pixels))
                    )
                if self.pictures_in is not None:
                    folder = Path(self.pictures_in)
                    folder = folder / f"steps-{steps}" if len(loaded.steps) > 1 else folder
                    drawn.setdefault("pictures", []).append(
                        str(write_pictures(folder, generated, ids, self.pixels))
                    )
        return drawn


def shared_ids(n: int, shard: Shard) -> range:
    """Return the ids of the i-th of k parts of n images: every k-th, from the i-th.

    Args:
        n: Images of the whole run.
        shard: (i, k), i from 1.

    Raises:
        BadInput: when there are fewer images than parts.

    Example:
        >>> list(shared_ids(5, (2, 2)))
        [1, 3]
    """
    i, k = shard
    if k > n:
        raise BadInput(f"shard {i}/{k}", f"has none of {n} images", f"use at most {n} shards")
    return range(i - 1, n, k)


def stored_images(store: RecordStore, steps: int | None = None) -> tuple[list[int], Generated]:
    """Return the images of a run that are done: their ids, ascending, and images with labels.

    Args:
        store: The records of a generate run.
        steps: Of how many steps; None for the first number.

    Raises:
        BadInput: where there is none.
    """
    shape = dataset_info(store.settings["dataset"]).shape
    steps = store.settings["steps"][0] if steps is None else steps
    rows = store.rows(MADE.table, {"steps": steps})
    if not rows:
        raise BadInput(str(store.folder), f"holds no images of {steps} steps", "run it")
    stored = store.rows(PIXELS.table, {"steps": steps})
    pixels = np.stack([np.frombuffer(row["image"], "<f4") for row in stored])
    images = torch.from_numpy(pixels.astype(np.float32)).reshape(-1, *shape)
    listed = [row["label"] for row in rows]
    labels = None if listed[0] is None else torch.tensor(listed, dtype=torch.int64, device="cpu")
    return [row["sample"] for row in rows], Generated(images, labels)


def _rows(generated: Generated, steps: int, ids: Sequence[int]) -> list[dict[str, Any]]:
    labels = [None] * len(ids) if generated.labels is None else generated.labels.tolist()
    means = generated.images.cpu().double().flatten(1).mean(1).tolist()
    return [
        {"steps": steps, "sample": i, "label": label, "brightness": min(max(mean, 0.0), 1.0)}
        for i, label, mean in zip(ids, labels, means, strict=True)
    ]


def _pixels(generated: Generated, steps: int, ids: Sequence[int]) -> list[dict[str, Any]]:
    pixels = generated.images.cpu().numpy().astype("<f4")
    return [
        {"steps": steps, "sample": i, "image": image.tobytes()}
        for i, image in zip(ids, pixels, strict=True)
    ]


def _named(file: str, steps: int, all_steps: Sequence[int]) -> Path:
    path = Path(file)
    return path if len(all_steps) == 1 else path.with_name(f"{path.stem}-{steps}{path.suffix}")
