"""What a page says of one run: a verdict, how it was reached, and what repeats it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from advpure.analysis.audit.free import free_findings
from advpure.analysis.audit.report import ORDER, AuditReport
from advpure.analysis.robustness.protocol import ADVERSARIAL, ATTACKS, CLEAN, NOISE, latest
from advpure.analysis.robustness.study import RobustnessReport
from advpure.analysis.robustness.wording import attack_text, randomness_text, strength_text
from advpure.base.display import Table, counted, percent, percent_ends, percent_interval, written
from advpure.base.errors import BadInput
from advpure.plots.charts import Points, Words, lines
from advpure.report.command import command_line, size_words
from advpure.report.pictures import FOOLED, HELD, WRONG, Card, Judged, cards, chart, judge
from advpure.report.runs import Run, flat_estimates
from advpure.runs.header import flatten
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import wilson
from advpure.studies import STUDIES

_STEPS = 2  # fewer are no curve
_COUNTED = ("forwards", "backwards")
_GROUPS = {
    "threat_model": "Threat model",
    "attack": "Attack",
    "defense": "Defense",
    "decisions": "Decisions",
    "randomness": "Randomness",
    "procedure": "Procedure",
}


class Bar(NamedTuple):
    """A rate to be drawn, in per cent.

    Attributes:
        name: Its name.
        value: The rate.
        low: Lower end of its interval.
        high: Upper end.
        words: Rate and interval.
    """

    name: str
    value: float
    low: float
    high: float
    words: str


class Figure(NamedTuple):
    """A chart: its data URI and what it shows."""

    data: str
    words: str


class Group(NamedTuple):
    """Settings under a title."""

    title: str
    rows: Sequence[tuple[str, str]]


class Number(NamedTuple):
    """An estimate of a report, by its path."""

    at: str
    value: str
    n: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A run on a page.

    Attributes:
        key: Name of its anchor.
        run: The run.
        title: What it is.
        verdict: The result in a sentence.
        bars: Accuracies to draw; empty for other studies.
        budget: What the attack was allowed and what it took, in sentences.
        groups: Every setting.
        parts: Tables of the report, and lines between them.
        figures: Charts.
        fates: Of an attack, how many images share each fate.
        cards: Images, where the run kept them.
        numbers: Every estimate.
        cost: What it took.
        origin: Versions and hashes.
        command: The line that makes the run again; None where the records do not say.
        notes: What a careful reader should know.
        audit: Verdicts on the run: verdict, check, the number behind it.
        data: The report as JSON.
    """

    key: str
    run: Run
    title: str
    verdict: str
    bars: Sequence[Bar]
    budget: Sequence[str]
    groups: Sequence[Group]
    parts: Sequence[Table | str]
    figures: Sequence[Figure]
    fates: Sequence[tuple[str, str, int]]
    cards: Sequence[Card]
    numbers: Sequence[Number]
    cost: Sequence[tuple[str, str]]
    origin: Sequence[Group]
    command: str | None
    notes: Sequence[str]
    audit: Sequence[tuple[str, str, str]]
    data: str


def section(run: Run, key: str, images: int) -> Section:
    """Return what a page says of a run, from its records alone.

    Args:
        run: The run.
        key: Name of its anchor.
        images: Images shown, at most.
    """
    report = run.report
    display = report.display()
    attacked = report if isinstance(report, RobustnessReport) else None
    with RecordStore.read(run.folder) as store:
        counted = list(_counted(store))
        judged = judge(store, attacked.right[CLEAN]) if attacked else []
        return Section(
            key=key,
            run=run,
            title=f"{run.verb}: {STUDIES.about(run.verb)}",
            verdict=_verdict(attacked) if attacked else display.headline,
            bars=_bars(attacked) if attacked else (),
            budget=list(_budget(store)) if attacked else (),
            groups=list(_groups(run.settings)),
            parts=() if isinstance(report, AuditReport) else display.parts,
            figures=list(_figures(run, store, judged)),
            fates=[
                (fate.name, fate.words, sum(each.fate == fate for each in judged))
                for fate in (HELD, FOOLED, WRONG)
                if attacked
            ],
            cards=cards(store, images, attacked.right[CLEAN]) if attacked and images else (),
            numbers=[
                Number(at, written(each, ".6g"), "" if each.n is None else str(each.n))
                for at, each in flat_estimates(report.tree())
            ],
            cost=[*counted, *_sessions(run)],
            origin=list(_origin(run)),
            command=_command(run, store),
            notes=_notes(run),
            audit=list(_audit(run, store)),
            data=json.dumps(report.to_json()).replace("<", "\\u003c"),
        )


def policy_words(settings: Mapping[str, Any]) -> str:
    """Say how a run draws and decides.

    Example:
        >>> policy_words({"decisions": {"randomness": "fresh", "draws": 10}})
        'fresh: mean over 10 decisions'
        >>> policy_words({"decisions": {"randomness": "fixed"}, "randomness": {"seed": 3}})
        'fixed: seed 3'
        >>> policy_words({"decisions": {"randomness": "fixed"}, "is_random": False})
        'draws nothing'
    """
    decisions, seed = settings.get("decisions"), (settings.get("randomness") or {}).get("seed")
    if decisions is None:
        words = "" if seed is None else f"seed {seed}"
    elif not settings.get("is_random", True):
        words = "draws nothing"
    elif decisions["randomness"] == "fixed":
        words = f"fixed: seed {seed}"
    else:
        words = f"fresh: mean over {counted(decisions['draws'], 'decision')}"
    policy = (settings.get("defense") or {}).get("policy") or {}
    if policy.get("kind", "single") != "single":
        words += f", {policy['kind']}:{policy['draws']}"
    return words


def threat_words(model: Mapping[str, Any]) -> str:
    """Say what the attacker may do.

    Example:
        >>> threat_words({"norm": "linf", "eps": 8 / 255})
        'change every pixel by up to 8/255 (linf)'
    """
    eps = size_words(model["eps"])
    if model["norm"] == "linf":
        return f"change every pixel by up to {eps} (linf)"
    return f"move an image by up to {eps} ({model['norm']})"


def _verdict(report: RobustnessReport) -> str:
    """Return the robust accuracy in a sentence, with its interval and its conditions."""
    s = report.settings
    robust = percent_interval(report.headline(ADVERSARIAL))
    clean = percent_interval(report.headline(CLEAN))
    is_mean = report.headline_rate == "mean" and s.get("is_random", True)
    how = "on the mean over fresh decisions " if is_mean else ""
    return (
        f"{strength_text(s['defense'])} keeps {robust} % of {report.n} images of {s['dataset']} "
        f"right {how}when {attack_text(s)} may {threat_words(s['threat_model'])}, under "
        f"{randomness_text(s)}; without an attack it has {clean} % right.{report.bound}"
    )


def _bars(report: RobustnessReport) -> list[Bar]:
    bars = []
    for stage, name in ((CLEAN, "clean"), (NOISE, "noise in the ball"), (ADVERSARIAL, "attacked")):
        rate = report.headline(stage)
        low, high = re.findall(r"[\d.]+", percent_ends(rate))
        words = f"{percent(rate.value)} % [{low}, {high}]"
        bars.append(Bar(name, 100 * rate.value, float(low), float(high), words))
    return bars


def _budget(store: RecordStore) -> Iterator[str]:
    """Yield what the attack was allowed and took."""
    rows = latest(store, ATTACKS.table, ADVERSARIAL)
    for column, name in (("forwards", "forward"), ("backwards", "backward")):
        taken = [row[column] for row in rows]
        yield (
            f"{sum(taken):,} {name} passes through the defense, {sum(taken) / len(taken):.4g} an "
            f"image, at most {max(taken):,}"
        )
    evaluations = (store.settings.get("defense") or {}).get("evaluations")
    if evaluations is not None:
        yield f"{counted(evaluations, 'network evaluation')} a pass"
    blind = sum(row["zero_gradient"] for row in rows)
    yield f"{blind} of {len(rows)} images gave the attack an exactly zero gradient"


def _groups(settings: Mapping[str, Any]) -> Iterator[Group]:
    """Yield every setting, under the name of its group."""
    plain = [
        (name, _value(value)) for name, value in settings.items() if not isinstance(value, Mapping)
    ]
    yield Group("Images and run", plain)
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows = [(key, _value(each)) for key, each in flatten(value)]
            yield Group(_GROUPS.get(name, name.replace("_", " ").capitalize()), rows)


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        near = size_words(value)
        return near if near == repr(value) else f"{value:.6g} ({near})"
    if isinstance(value, list | tuple) and all(not isinstance(each, list | dict) for each in value):
        return ", ".join(map(_value, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _figures(run: Run, store: RecordStore, judged: Sequence[Judged]) -> Iterator[Figure]:
    """Yield the study's own figure, and of an attack the accuracy over its steps."""
    with suppress(BadInput):  # of a study that has no figure for these records
        yield Figure(
            chart(lambda path: run.study.draw(store, path)), f"Figure of {run.verb} ({run.folder})"
        )
    points = over_steps(store, judged)
    if points is not None:
        name = store.settings["attack"]["name"]
        words = Words(
            x=f"steps of {name}",
            y="accuracy",
            title="What more steps of the attack leave",
            caption=f"{attack_text(store.settings)}, {randomness_text(store.settings)}; "
            f"{len(judged)} images; the band is Wilson's 95 % interval",
        )
        yield Figure(
            chart(lambda path: lines({name: points}, path, words)), "Accuracy over attack steps"
        )


def over_steps(store: RecordStore, judged: Sequence[Judged]) -> Points | None:
    """Return the accuracy that is left after each number of steps.

    Known where decided images leave the attack and one decision is the attack's own: under fixed
    randomness with ``stop=success``. None for other runs, or an attack of one step.
    """
    s, attack = store.settings, store.settings.get("attack") or {}
    fixed = (s.get("decisions") or {}).get("randomness") == "fixed"
    if (
        not judged
        or not fixed
        or attack.get("stop") != "success"
        or attack.get("steps", 0) < _STEPS
    ):
        return None
    rows = {row["sample"]: row for row in latest(store, ATTACKS.table, ADVERSARIAL)}
    ends = {each.sample: rows[each.sample]["iterations"] for each in judged}
    if any(
        (each.fate == FOOLED) != rows[each.sample]["fooled"]
        for each in judged
        if each.fate != WRONG
    ):
        return None
    steps = sorted(
        {0, *(ends[each.sample] for each in judged if each.fate == FOOLED), attack["steps"]}
    )
    left = [
        sum(e.fate == HELD or (e.fate == FOOLED and ends[e.sample] > step) for e in judged)
        for step in steps
    ]
    rates = [wilson(count, len(judged)) for count in left]
    return Points(
        x=steps,
        y=[rate.value for rate in rates],
        y_low=[rate.low for rate in rates],
        y_high=[rate.high for rate in rates],
    )


def _counted(store: RecordStore) -> Iterator[tuple[str, str]]:
    """Yield the passes that rows count."""
    for schema in store.schemas:
        rows = store.rows(schema.table)
        for column in _COUNTED:
            if column in schema.columns and rows:
                total = sum(row[column] or 0 for row in rows)
                yield f"{column} in {schema.table}", f"{total:,}"
        yield f"rows of {schema.table}", f"{len(rows):,}"


def _sessions(run: Run) -> Iterator[tuple[str, str]]:
    yield "sessions", str(len(run.sessions))
    yield "began", str(run.sessions[0].get("started", ""))
    yield "device", str(run.context.get("device", ""))
    yield "threads", str(run.context.get("threads", ""))


def _origin(run: Run) -> Iterator[Group]:
    """Yield what the run was computed with."""
    context = run.context
    names = ("advpure", "python", "torch", "numpy", "sqlite", "platform", "cpu", "matmul", "dtype")
    yield Group("Versions", [(name, str(context[name])) for name in names if name in context])
    weights = [(part, str(digest)) for part, digest in (context.get("weights") or {}).items()]
    yield Group("Weights (sha256)", weights)
    sources = [(part, str(digest)) for part, digest in (context.get("sources") or {}).items()]
    yield Group("Code (sha256)", sources)


def _command(run: Run, store: RecordStore) -> str | None:
    try:
        return command_line(run.study.recorded(store))
    except BadInput:
        return None


def _notes(run: Run) -> list[str]:
    notes = list(run.report.notes)
    if not run.finished:
        notes.append("the run is not finished: this is what it has so far")
    return notes


def _audit(run: Run, store: RecordStore) -> Iterator[tuple[str, str, str]]:
    """Yield the verdicts of an audit, or of the checks that cost nothing, failures first."""
    if isinstance(run.report, AuditReport):
        judged = list(run.report.findings.items())
    else:
        judged = [(each.check, each.finding) for each in free_findings(store)]
    for check, found in sorted(judged, key=lambda each: ORDER.index(each[1].status)):
        yield found.status, check.name, found.words


_AXES = {
    "threat_model.eps": "epsilon",
    "attack.steps": "steps of the attack",
    "defense.t": "time step",
    "defense.sigma": "noise level",
}
_FOLLOW = ("n", "attack.eps", "attack.step_size", "defense.evaluations", "defense.nodes")
"""Settings that follow from others, or that a curve may cross."""


def curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the headline values of runs that differ in one ordered setting, along it."""
    for verb in dict.fromkeys(run.verb for run in runs):
        mine = [run for run in runs if run.verb == verb]
        for axis, name in _AXES.items():
            groups = _along(mine, axis)
            if groups:
                words = Words(
                    x=name,
                    y=", ".join(mine[0].study.columns),
                    title=f"{verb} over {name}",
                    caption="bands are 95 % intervals",
                )
                yield Figure(
                    chart(lambda path, g=groups, w=words: lines(g, path, w)),  # type: ignore[misc]
                    f"{verb} over {name}",
                )


def _along(runs: Sequence[Run], axis: str) -> dict[str, Points]:
    """Return the curves along an axis, those of seven groups at most."""
    groups: dict[str, dict[float, Run]] = {}
    for run in runs:
        settings = dict(flatten(run.settings))
        at = settings.get(axis)
        if isinstance(at, int | float):
            rest = {k: v for k, v in settings.items() if k not in (axis, *_FOLLOW)}
            groups.setdefault(json.dumps(rest, sort_keys=True), {})[float(at)] = run
    found: dict[str, Points] = {}
    for members in groups.values():
        if len(members) < _STEPS:
            continue
        places = sorted(members)
        for column, spec in members[places[0]].study.columns.items():
            values = [headline(members[place], spec["at"]) for place in places]
            if any(each is None for each in values):
                continue
            purifier = _purifier(members[places[0]])
            ends = [
                each.interval or (each.value, each.value) for each in values if each is not None
            ]
            name = ", ".join(filter(None, (purifier, column)))
            name += "" if name not in found else f" ({len(found) + 1})"
            found[name] = Points(
                x=places,
                y=[each.value for each in values if each is not None],
                y_low=[end[0] for end in ends],
                y_high=[end[1] for end in ends],
            )
    return dict(list(found.items())[:7])


def headline(run: Run, at: str) -> Estimate | None:
    """Return a headline value of a run; None where its report has none."""
    from advpure.sweeps.columns import Column

    try:
        return Column(block=run.verb, at=at).read(run.report.tree())
    except BadInput:
        return None


def _purifier(run: Run) -> str:
    defense = run.settings.get("defense")
    return str(defense.get("purifier", "")) if isinstance(defense, Mapping) else str(defense or "")


def folder_name(folder: Path) -> str:
    """Return a name for an anchor.

    Example:
        >>> folder_name(Path("runs/attack-1 (old)"))
        'attack-1-old'
    """
    return re.sub(r"[^\w-]+", "-", folder.name).strip("-") or "run"
