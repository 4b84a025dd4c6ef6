"""Measured beside published: run an experiment, or read one that was run, and test its claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advpure.base.errors import BadInput
from advpure.sweeps.checks import run_check
from advpure.sweeps.columns import Column, find_printed
from advpure.sweeps.evidence import Evidence, Finding
from advpure.sweeps.experiment import Experiment
from advpure.sweeps.index import Index
from advpure.sweeps.published import Printed
from advpure.sweeps.session import SweepRun, look_unbroken
from advpure.sweeps.table import Key, Reports, Table, tabulate


@dataclass(frozen=True)
class Reproduction:
    """An experiment's table with the published values and the verdicts on its claims.

    Attributes:
        experiment: The experiment, in one size.
        run: What became of its points.
        table: The measured values, computed from records.
        findings: The checks, in the order of the file.
    """

    experiment: Experiment
    run: SweepRun
    table: Table
    findings: tuple[Finding, ...]

    def printed(self, row: Key, column: str) -> Printed | None:
        """Return the published value of a cell, None where nothing was published."""
        found = self.table.columns[column]
        return find_printed(self.experiment.table, self.table.named(row), column, found)

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object; rates are shares in [0, 1], published ones too."""
        e = self.experiment
        return {
            "experiment": e.id,
            "size": e.size,
            "title": e.title,
            "about": e.about,
            "label": e.label,
            "rows": [self._row(row) for row in self.table.rows],
            "checks": [finding.to_json() for finding in self.findings],
            "published": None
            if e.table is None
            else {
                "table": e.table_id,
                "title": e.table.title,
                "settings": e.table.settings,
                "notes": e.table.notes,
            },
            "failed": dict(self.run.failed),
            "left": list(self.run.left),
            "notes": list(self.run.notes),
            "sweep": str(self.run.index.folder),
        }

    def _row(self, row: Key) -> dict[str, Any]:
        entry: dict[str, Any] = dict(self.table.named(row))
        counts = []
        for name in self.table.columns:
            value = self.table.value(row, name)
            entry[name] = None if value is None else value.value
            if value is None:
                continue
            entry[f"{name}_interval"] = list(value.interval) if value.interval else None
            entry[f"{name}_n"] = value.n
            if value.std is not None:
                entry[f"{name}_std"] = value.std
            counts += [value.n] if value.n is not None else []
        entry["n"] = min(counts, default=None)
        published = {name: self.printed(row, name) for name in self.table.columns}
        entry["published"] = {
            name: {"value": p.value} | ({} if p.std is None else {"std": p.std})
            for name, p in published.items()
            if p is not None
        }
        return entry


def reproduction(experiment: Experiment, run: SweepRun) -> Reproduction:
    """Compute table and verdicts from the records of an experiment's finished points.

    Args:
        experiment: The experiment.
        run: Its sweep, finished or not.

    Raises:
        BadInput: when the experiment's columns or checks do not fit the reports.
    """
    table = tabulate(
        run.points, run.done, Reports(run.index.root), experiment.keys, experiment.columns
    )
    evidence = Evidence(table, run.index.root)
    findings = tuple(run_check(spec, evidence) for spec in experiment.checks)
    return Reproduction(experiment, run, table, findings)


def origin(index: Index) -> tuple[str, str, Mapping[str, Any]] | None:
    """Return name, size and changes of the experiment that a sweep belongs to, None if to none."""
    settings = index.settings
    if "experiment" not in settings:
        return None
    return settings["experiment"], settings["size"], settings.get("changes", {})


def read_reproduction(index: Index) -> Reproduction:
    """Read a reproduction from a sweep's folder, computing nothing anew.

    Raises:
        BadInput: for a sweep that belongs to no experiment, or to one that is no longer there.
    """
    from advpure.sweeps.experiment import load_experiment

    named = origin(index)
    if named is None:
        raise BadInput(str(index.folder), "belongs to no experiment", "use advpure plot")
    return reproduction(load_experiment(*named), look_unbroken(index))


def grouped(columns: Mapping[str, Column]) -> dict[str, dict[str, Column]]:
    """Return an experiment's columns by block, as the live table shows them."""
    blocks: dict[str, dict[str, Column]] = {}
    for name, column in columns.items():
        blocks.setdefault(column.block, {})[name] = column
    return blocks
