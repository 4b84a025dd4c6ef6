"""Many runs in one table: who leaves most, how it draws, and by how much it is behind the first."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from advpure.analysis.robustness.wording import attack_text, strength_text
from advpure.base.display import percent_interval, written
from advpure.base.errors import BadInput
from advpure.report.compare import LEVEL
from advpure.report.content import headline, policy_words, threat_words
from advpure.report.runs import Run
from advpure.statistics.estimates import Estimate
from advpure.sweeps.comparisons import subtract

RANKED = {"attack": "robust", "certify": "average radius"}
"""Verbs that are ranked, by the headline value that ranks them; more is better."""


class Line(NamedTuple):
    """A run of a board: its place, and the cells of its columns."""

    place: int
    cells: Sequence[str]
    run: Run


class Board(NamedTuple):
    """Runs on the same images under the same threat model, best first."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]


def boards(runs: Sequence[Run]) -> list[Board]:
    """Return a board for every set of images and threat model.

    Raises:
        BadInput: for a run of a verb that ranks nothing.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.verb not in RANKED:
            known = ", ".join(RANKED)
            raise BadInput(
                str(run.folder), f"is a run of {run.verb}, not of {known}", "leave it out"
            )
        s = run.settings
        asked = s.get("threat_model") or {k: s["procedure"][k] for k in ("samples", "alpha")}
        key = {"verb": run.verb, "dataset": s["dataset"], "subset": s["subset"], "asked": asked}
        groups.setdefault(json.dumps(key, sort_keys=True), []).append(run)
    return [_board(json.loads(key), members) for key, members in sorted(groups.items())]


def _board(key: Mapping[str, Any], runs: Sequence[Run]) -> Board:
    verb, asked = key["verb"], key["asked"]
    columns, rank = runs[0].study.columns, RANKED[verb]
    values = {id(run): {n: headline(run, c["at"]) for n, c in columns.items()} for run in runs}
    ordered = sorted(runs, key=lambda run: -_of(values[id(run)][rank]))
    best = values[id(ordered[0])][rank]
    words = (
        f"the attack may {threat_words(asked)}"
        if verb == "attack"
        else f"at most {asked['samples']:,} samples an image, alpha {asked['alpha']:g}"
    )
    heads = (
        "defense",
        "draw policy",
        "attack" if verb == "attack" else "procedure",
        *(f"{name} %" if c.get("unit") == "percent" else name for name, c in columns.items()),
        "behind the first",
        "n",
        "run",
    )
    lines = []
    for run in ordered:
        mine = values[id(run)]
        cells = [
            _defense(run.settings),
            policy_words(run.settings),
            attack_text(run.settings) if verb == "attack" else run.settings["procedure"]["name"],
            *(_cell(mine[name], spec) for name, spec in columns.items()),
            "" if run is ordered[0] else _behind(best, mine[rank], columns[rank]),
            str(len(run.samples)),
            str(run.folder),
        ]
        lines.append(Line(_place(ordered, values, rank, run), cells, run))
    title = f"{key['dataset']} ({key['subset']}): {words}"
    return Board(title, heads, lines)


def _place(
    ordered: Sequence[Run], values: Mapping[int, Mapping[str, Estimate | None]], rank: str, run: Run
) -> int:
    """Return the place of a run; equal values share one."""
    mine = _of(values[id(run)][rank])
    return 1 + sum(_of(values[id(other)][rank]) > mine for other in ordered)


def _of(value: Estimate | None) -> float:
    return float("-inf") if value is None else value.value


def _cell(value: Estimate | None, spec: Mapping[str, Any]) -> str:
    if value is None:
        return ""
    return percent_interval(value) if spec.get("unit") == "percent" else written(value)


def _behind(best: Estimate | None, mine: Estimate | None, spec: Mapping[str, Any]) -> str:
    if best is None or mine is None:
        return ""
    difference = subtract(best, mine, LEVEL)
    if spec.get("unit") == "percent":
        return written(difference, ".1f", scale=100.0)
    return written(difference)


def _defense(settings: Mapping[str, Any]) -> str:
    defense = settings["defense"]
    networks = [(defense.get(part) or {}).get("name") for part in ("denoiser", "classifier")]
    return f"{strength_text(defense)} ({', '.join(filter(None, networks))})"
