"""``advpure sweep``: run a verb over grids of its options, and go on after an interruption."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import groups as g
from advpure.cli.flatten import flattened, without

if TYPE_CHECKING:
    from advpure.sweeps.cost import SweepCost
    from advpure.sweeps.session import Session, SweepRun

ELSEWHERE = 3
"""Exit code: nothing failed, and another process still has points."""


@dataclass(frozen=True, kw_only=True)
class Workers(g.Running):
    """How the points of a sweep run, and where they are kept."""

    out: Annotated[
        str,
        typer.Option(
            "--out", help="Folder of the run folders; runs that are there are not redone."
        ),
    ] = "runs"
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j",
            help="Processes, 1 or more. Default: one per core, at most 8; 1 on a GPU.",
        ),
    ] = None  # fmt: skip
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of each process, 1 or more. Default: the cores shared."),
    ] = None

    def session(self, shard: tuple[int, int] = (1, 1)) -> "Session":
        """Return the session that they ask for."""
        from advpure.base.validation import words
        from advpure.sweeps.session import Session

        return Session(
            root=Path(words(self.out, "out")), jobs=self.jobs, threads=self.threads, shard=shard,
            batch_size=self.batch_size,
        )  # fmt: skip


@flattened
def sweep(
    *,
    file: Annotated[str, typer.Argument(help="Sweep file (YAML), see docs/sweeps.md.")],
    shard: Annotated[
        str, typer.Option(help="i/k: only every k-th point from the i-th, for k machines.")
    ] = "1/1",
    running: Annotated[Workers, without("plot")],
) -> None:
    """Run recorded verbs over grids and zips of their options, coarse grid first.

    Every point is a run folder of its verb, named by its settings: the same command goes on where
    it was interrupted, and nothing is computed twice. A point that fails is noted, the others go
    on, and the exit code is 1; it is 3 where nothing failed and another process has points.

    Example: advpure sweep law.yaml --jobs 2
    """
    from advpure.base.text import read_shard
    from advpure.cli import output
    from advpure.cli.live import describe, live_table, write_value
    from advpure.statistics.estimates import Estimate
    from advpure.sweeps.overview import overview, shown_columns
    from advpure.sweeps.session import prepare_sweep, run_sweep
    from advpure.sweeps.sweep import load_sweep

    session = running.session(read_shard(shard))
    index, points = prepare_sweep(load_sweep(file), session)
    if running.dry_run:
        print_cost(index, points, session, running.as_json)
        return
    columns = shown_columns(points)
    with live_table(index, points, columns, running.shown):
        run = run_sweep(index, points, session)
    found = overview(run)
    if running.as_json:
        output.print_json(found)
    else:
        print(
            f"sweep {found['name']}: {found['done']} of {len(found['points'])} points done"
            + (f", {found['failed']} failed" if found["failed"] else "")
            + (f", {found['left']} with another process" if found["left"] else "")
        )
        names = list(dict.fromkeys(name for block in columns.values() for name in block))
        units = {name: c.unit for block in columns.values() for name, c in block.items()}
        by_run = {(point.block, point.run): point for point in points}
        rows = []
        for entry in found["points"]:
            values = {
                k: write_value(Estimate(**v), units[k]) for k, v in entry.get("values", {}).items()
            }
            at = describe(by_run[entry["block"], entry["run"]])
            cells = [values.get(name, "") for name in names]
            rows.append([entry["block"], at, entry["state"], *cells])
        output.print_table(["block", "at", "state", *names], rows)
        for entry in found["points"]:
            if "error" in entry:
                print(f"failed: {entry['block']} {entry['run']}: {entry['error']}")
        for text in run.notes:
            output.note(text)
        print(f"records: {index.folder}")
    end_by(run)


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
            point.block, describe(point),
            *(
                ("?", "?", "?")
                if each is None
                else (f"{each.evaluations:,}", f"{each.backwards:,}", output.duration(each.seconds))
            ),
        ]
        for point, each in cost.estimates
    ]  # fmt: skip
    output.print_table(["block", "at", "evaluations", "backward passes", "at most"], rows)
    print(
        f"{cost.done} of {cost.points} points done; the others take at most "
        f"{cost.evaluations:,} network evaluations and {cost.backwards:,} backward passes, about "
        f"{output.duration(cost.seconds)} here in {cost.jobs} "
        f"process{'es' if cost.jobs > 1 else ''}"
        + (f", not counting {cost.unknown} whose verb cannot say" if cost.unknown else "")
    )
