"""``advpure sweep``: run a verb over grids of its options, and go on after an interruption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from advpure.base.flags import Flag, Positional
from advpure.base.kinds import Natural
from advpure.base.validation import validate
from advpure.cli.studies import command_from, running_options

if TYPE_CHECKING:
    from advpure.sweeps.cost import SweepCost
    from advpure.sweeps.executors import Executor
    from advpure.sweeps.on_ray import RayOptions
    from advpure.sweeps.on_slurm import SlurmOptions
    from advpure.sweeps.points import Point
    from advpure.sweeps.session import Session, SweepRun

MOST_JOBS = 64
"""Jobs that are with a cluster at once, where nothing is said."""
ELSEWHERE = 3
"""Exit code: nothing failed, and another process still has points."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How the points of a sweep run, and where they are kept.

    Attributes:
        out: Folder of the run folders; runs that are there are not redone.
        jobs: Processes. Default: one per core, at most 8; 1 on a GPU.
        threads: Threads of each process. Default: the cores shared.
        batch_size: Images in memory at once; changes no result.
        on: Where points are computed: local processes, or jobs of slurm or ray; these two need the
            extra cluster, and a file system that all nodes see.
        cluster: Of slurm or ray, KEY=VALUE: such as minutes=240, gpus=1, partition=NAME or
            address=auto; see docs/sweeps.md.
    """

    panel: ClassVar[str] = "Running and results"

    out: str = "runs"
    jobs: Annotated[Natural | None, Flag("--jobs", "-j")] = None
    threads: Natural | None = None
    batch_size: Natural | None = None
    on: Literal["local", "slurm", "ray"] = "local"
    cluster: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        _ = self.asked

    @property
    def asked(self) -> "SlurmOptions | RayOptions | None":
        """What a cluster is asked for each point; None for local processes.

        Raises:
            BadInput: for options that the cluster does not have, or that local processes are given.
        """
        from advpure.base.errors import BadInput
        from advpure.options import read_options
        from advpure.sweeps.on_ray import RayOptions
        from advpure.sweeps.on_slurm import SlurmOptions

        if self.on == "slurm":
            return read_options(SlurmOptions, self.cluster, "slurm")
        if self.on == "ray":
            return read_options(RayOptions, self.cluster, "ray")
        if self.cluster and getattr(self, "array", None) is None:
            name = next(iter(self.cluster))
            raise BadInput(f"cluster {name}", "means nothing here", "add --on slurm or --on ray")
        return None

    def executor(self, points: "Sequence[Point]") -> "Executor | None":
        """Return what computes the points; None for processes of this machine.

        Raises:
            MissingExtra: when the package of the cluster is not installed.
        """
        from advpure.sweeps.on_ray import OnRay, RayOptions
        from advpure.sweeps.on_slurm import Slurm, SlurmOptions

        slots, asked = self.jobs or min(len(points), MOST_JOBS), self.asked
        if isinstance(asked, SlurmOptions):
            return Slurm(Path(self.out), slots, asked)
        if isinstance(asked, RayOptions):
            return OnRay(slots, asked)
        return None

    def session(self, shard: tuple[int, int] = (1, 1)) -> "Session":
        """Return the session that these settings describe."""
        from advpure.sweeps.session import Session

        asked = self.asked
        return Session(
            root=Path(self.out),
            jobs=self.jobs,
            threads=self.threads or (None if asked is None else asked.cpus),
            shard=shard,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, kw_only=True)
class Sweeping(Workers):
    """Run recorded verbs over grids and zips of their options, coarse grid first.

    Every point is a run folder of its verb, named by its settings: the same command goes on where
    it was interrupted, and nothing is computed twice. A point that fails is noted, the others go
    on, and the exit code is 1; it is 3 where nothing failed and another process has points.

    Example: advpure sweep law.yaml --jobs 2

    Attributes:
        file: Sweep file (YAML), see docs/sweeps.md.
        shard: i/k: only every k-th point from the i-th, for k machines.
        array: Write a SLURM script of --jobs shards to this file, and stop.
    """

    panel: ClassVar[str] = "Options"

    file: Annotated[str, Positional()]
    shard: str = "1/1"
    array: str | None = None


def command() -> Any:
    """Return the command, made from its settings."""
    return command_from("sweep", Sweeping, running_options("dry_run", "as_json", "quiet"), _run)


def _run(settings: Sweeping, *, dry_run: bool, as_json: bool, quiet: bool) -> None:
    from advpure.base.text import read_shard
    from advpure.cli import output
    from advpure.cli.live import describe, live_table, write_value
    from advpure.statistics.estimates import Estimate
    from advpure.sweeps.overview import overview, shown_columns
    from advpure.sweeps.session import prepare_sweep, run_sweep
    from advpure.sweeps.sweep import load_sweep

    session = settings.session(read_shard(settings.shard))
    index, points = prepare_sweep(load_sweep(settings.file), session)
    if settings.array is not None:
        print(f"script: {_write_array(settings, len(points), dry_run)}")
        return
    if dry_run:
        print_cost(index, points, session, as_json)
        return
    columns = shown_columns(points)
    with live_table(index, points, columns, not (quiet or as_json)):
        run = run_sweep(index, points, session, settings.executor(points))
    table = overview(run)
    if as_json:
        output.print_json(table)
    else:
        print(
            f"sweep {table['name']}: {table['done']} of {len(table['points'])} points done"
            + (f" of shard {settings.shard}" if settings.shard != "1/1" else "")
            + (f", {table['failed']} failed" if table["failed"] else "")
            + (f", {table['left']} with another process" if table["left"] else "")
        )
        names = list(dict.fromkeys(name for block in columns.values() for name in block))
        units = {name: c.unit for block in columns.values() for name, c in block.items()}
        by_run = {(point.block, point.run): point for point in points}
        rows = []
        for entry in table["points"]:
            values = {
                k: write_value(Estimate(**v), units[k]) for k, v in entry.get("values", {}).items()
            }
            at = describe(by_run[entry["block"], entry["run"]])
            cells = [values.get(name, "") for name in names]
            rows.append([entry["block"], at, entry["state"], *cells])
        output.print_table(["block", "at", "state", *names], rows)
        for entry in table["points"]:
            if "error" in entry:
                print(f"failed: {entry['block']} {entry['run']}: {entry['error']}")
        for text in run.notes:
            output.note(text)
        print(f"records: {index.folder}")
    end_by(run)


def _write_array(settings: Sweeping, points: int, dry_run: bool) -> Path:
    """Write the script of an array job, each task a shard.

    Raises:
        BadInput: beside a shard, or an executor that needs no script.
    """
    from advpure.base.errors import BadInput
    from advpure.sweeps.array import write_array
    from advpure.sweeps.on_slurm import SlurmOptions

    if settings.on == "ray":
        raise BadInput("array", "is a script for slurm", "leave out --on ray")
    if settings.shard != "1/1":
        raise BadInput(f"shard {settings.shard}", "is what the script says", "leave it out")
    if dry_run:
        raise BadInput("--dry-run", "means nothing to a script", "leave out one of the two")
    asked = replace(settings, on="slurm").asked
    assert isinstance(asked, SlurmOptions)
    command = ["advpure", "sweep", str(Path(settings.file).resolve()), "--quiet"]
    command += ["--out", str(Path(settings.out).resolve())]
    if settings.batch_size is not None:
        command += ["--batch-size", str(settings.batch_size)]
    return write_array(settings.array or "", command, settings.jobs or points, asked)


def end_by(run: "SweepRun") -> None:
    """End with 1 where a point failed, else with 3 where another process still has one."""
    if run.failed:
        raise typer.Exit(1)
    if run.left:
        raise typer.Exit(ELSEWHERE)


def print_cost(index: Any, points: Any, session: "Session", as_json: bool) -> None:
    """Print what the unfinished points will cost, each and together."""
    from advpure.cli import output
    from advpure.cli.live import describe
    from advpure.sweeps.cost import estimate_sweep

    with output.progress("estimating", len(points), not as_json) as bar:
        cost: SweepCost = estimate_sweep(index, points, session.resolved(points).jobs or 1, bar)
    if as_json:
        output.print_json({"dry_run": True, "sweep": str(index.folder), **cost.to_json()})
        return
    rows = [
        [
            point.block,
            describe(point),
            f"{each.evaluations:,}",
            f"{each.backwards:,}",
            output.duration(each.seconds),
        ]
        for point, each in cost.estimates
    ]
    output.print_table(["block", "at", "evaluations", "backward passes", "at most"], rows)
    print(
        f"{cost.done} of {cost.points} points done; the others take at most "
        f"{cost.evaluations:,} network evaluations and {cost.backwards:,} backward passes, about "
        f"{output.duration(cost.seconds)} here in {cost.jobs} "
        f"process{'es' if cost.jobs > 1 else ''}"
    )
