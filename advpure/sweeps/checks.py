"""What a table must show, each check with its verdict: holds, does not hold, undecided at this n.

A check of an experiment names its kind and what that kind asks for:

    {check: monotone, column: cr, along: t, direction: falls}
    {check: order, column: cr, along: purifier, values: [reverse, ddpm, ddim], direction: rises}
    {check: rank-correlation, columns: [cr, pgd_fix], at_most: -0.9}
    {check: less, column: l2_before, than: l2_after}
    {check: ratio, of: internal, over: input, at_least: 10}
    {check: bound, column: internal_to_input, at_least: 10}
    {check: stable, column: cr, along: eps, reference: 8/255, within: 0.05, upto: 16/255}

`where: {KEY: VALUE}` keeps only the rows with that value, or with one of a list of values. The
intervals of several comparisons within one check are widened (Bonferroni), so that all hold
together with 95 %. A claim holds if every comparison is decided for it, does not hold if one is
decided against it, and is undecided otherwise.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from advpure.base.errors import BadInput
from advpure.base.units import as_number
from advpure.base.validation import check_choice
from advpure.statistics.rates import Interval
from advpure.sweeps.comparisons import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Difference,
    Verdict,
    subtract,
    together,
    widened,
)
from advpure.sweeps.evidence import Evidence, Finding, equal
from advpure.sweeps.rank_correlation import rank_correlation
from advpure.sweeps.table import Key, Table

LEVEL = 0.95


def run_check(spec: Mapping[str, Any], evidence: Evidence) -> Finding:
    """Run one check.

    Args:
        spec: Its kind under ``check``, and what that kind asks for.
        evidence: The table.

    Raises:
        BadInput: for an unknown kind, or one whose options do not fit.
    """
    options = dict(spec)
    kind = options.pop("check", None)
    check_choice(kind, tuple(CHECKS), "check")
    kept = options.pop("where", {})
    for key in kept:
        check_choice(key, tuple(evidence.table.keys), f"key of check {kind}")
    evidence = evidence.where(kept)
    for name in ("column", "than", "of", "over"):
        if name in options:
            check_choice(options[name], tuple(evidence.table.columns), f"column of check {kind}")
    if "along" in options:
        check_choice(options["along"], tuple(evidence.table.keys), f"key of check {kind}")
    run = CHECKS[str(kind)]
    try:
        inspect.signature(run).bind(evidence, **options)
    except TypeError as error:
        raise BadInput(
            f"check {kind} with {', '.join(options)}", "does not fit", str(error)
        ) from None
    finding = run(evidence, **options)
    if not kept:
        return finding
    words = ", ".join(
        f"{key} {' or '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in kept.items()
    )
    return replace(finding, claim=f"{words}: {finding.claim}")


def monotone(evidence: Evidence, *, column: str, along: str, direction: str) -> Finding:
    """Claim that a column falls or rises along a key, for all values of the other keys."""
    groups = _groups(evidence.table, along)
    ordered = [sorted(rows, key=lambda row: _numeric(row, along, evidence)) for rows in groups]
    pairs = [pair for rows in ordered for pair in itertools.pairwise(rows)]
    return _steps(evidence, column, pairs, direction, f"{column} {direction} with {along}")


def order(
    evidence: Evidence, *, column: str, along: str, values: Sequence[Any], direction: str
) -> Finding:
    """Claim that a column falls or rises through listed values of a key."""
    index = list(evidence.table.keys).index(along)
    pairs = []
    for rows in _groups(evidence.table, along):
        by_value = {row[index]: row for row in rows}
        chosen = [by_value[value] for value in values if value in by_value]
        pairs += list(itertools.pairwise(chosen))
    claim = f"{column} {direction} through {', '.join(map(str, values))}"
    finding = _steps(evidence, column, pairs, direction, claim)
    there = {row[index] for row in evidence.table.rows}
    absent = [str(value) for value in values if value not in there]
    if not absent:
        return finding
    detail = f"{finding.detail}; no row of {', '.join(absent)}"
    return replace(finding, verdict=together([finding.verdict, UNDECIDED]), detail=detail)


def correlation(evidence: Evidence, *, columns: Sequence[str], at_most: float) -> Finding:
    """Claim that the rank correlation of two columns over the rows is at most some value."""
    first, second = columns
    rows = [
        row
        for row in evidence.table.rows
        if evidence.cell(row, first) is not None and evidence.cell(row, second) is not None
    ]
    claim = f"Spearman correlation of {first} with {second} is at most {at_most:g}"
    values = [[evidence.table.value(row, name) for row in rows] for name in columns]
    samples = [[evidence.samples(row, name) for row in rows] for name in columns]
    estimate = rank_correlation(
        [v.value for v in values[0] if v], [v.value for v in values[1] if v], *samples
    )
    if estimate is None:
        return Finding(claim, UNDECIDED, f"{len(rows)} rows have both values")
    verdict: Verdict = UNDECIDED
    if estimate.interval is not None and len(rows) == len(evidence.table.rows):
        low, high = estimate.interval
        verdict = HOLDS if high <= at_most else FAILS if low > at_most else UNDECIDED
    spread = "no value for every image"
    if estimate.interval is not None:
        low, high = estimate.interval
        spread = f"95 % [{low:.3f}, {high:.3f}], bootstrap over images"
    of_all = "" if len(rows) == len(evidence.table.rows) else f" of {len(evidence.table.rows)}"
    detail = f"{estimate.value:.3f} over {len(rows)}{of_all} rows, {spread}"
    return Finding(claim, verdict, detail, estimate.value, estimate.interval, estimate.n)


def less(evidence: Evidence, *, column: str, than: str) -> Finding:
    """Claim that one column is less than another in every row."""
    level = 1 - (1 - LEVEL) / max(len(evidence.table.rows), 1)
    differences: list[Difference | None] = []
    for row in evidence.table.rows:
        a, b = evidence.table.value(row, than), evidence.table.value(row, column)
        if a is None or b is None:
            differences.append(None)
            continue
        differences.append(
            subtract(
                replace(a, by_image=evidence.samples(row, than)),
                replace(b, by_image=evidence.samples(row, column)),
                level,
            )
        )
    return _decided(differences, f"{column} is less than {than}", "rows")


def ratio(evidence: Evidence, *, of: str, over: str, at_least: float) -> Finding:
    """Claim that one column is several times another, in every row."""
    claim = f"{of} is at least {at_least:g} times {over}"
    verdicts: list[Verdict] = []
    shares = []
    level = 1 - (1 - LEVEL) / max(2 * len(evidence.table.rows), 1)
    for row in evidence.table.rows:
        a, b = evidence.table.value(row, of), evidence.table.value(row, over)
        if a is None or b is None or b.value == 0:
            verdicts.append(UNDECIDED)
            continue
        shares.append(a.value / b.value)
        least, most = _ratio_bounds(widened(a, level), widened(b, level))
        verdicts.append(HOLDS if least >= at_least else FAILS if most < at_least else UNDECIDED)
    if not shares:
        return Finding(claim, UNDECIDED, "no row has both values")
    detail = f"{min(shares):.3g} to {max(shares):.3g} times over {len(shares)} rows"
    return Finding(claim, together(verdicts), detail, min(shares))


def bound(
    evidence: Evidence, *, column: str, at_least: float | None = None, at_most: float | None = None
) -> Finding:
    """Claim that a column is at least or at most some value, in every row."""
    words = [f"at least {at_least:g}"] if at_least is not None else []
    words += [f"at most {at_most:g}"] if at_most is not None else []
    claim = f"{column} is {' and '.join(words)}"
    lowest, highest = -math.inf if at_least is None else at_least, math.inf
    highest = highest if at_most is None else at_most
    verdicts: list[Verdict] = []
    values = [evidence.table.value(row, column) for row in evidence.table.rows]
    level = 1 - (1 - LEVEL) / max(len(values), 1)
    for value in values:
        ends = None if value is None else widened(value, level)
        if ends is None:
            verdicts.append(UNDECIDED)
        elif ends.high < lowest or ends.low > highest:
            verdicts.append(FAILS)
        else:
            verdicts.append(HOLDS if lowest <= ends.low and ends.high <= highest else UNDECIDED)
    known = [value for value in values if value is not None]
    if not known:
        return Finding(claim, UNDECIDED, "the values are not there")
    shown = [
        f"{value.value:.4g}"
        + (f" [{value.interval.low:.4g}, {value.interval.high:.4g}]" if value.interval else "")
        for value in known
    ]
    single = known[0] if len(known) == 1 else None
    return Finding(
        claim,
        together(verdicts),
        "; ".join(shown[:6]),
        single and single.value,
        single and single.interval,
        single and single.n,
    )


def stable(
    evidence: Evidence, *, column: str, along: str, reference: Any, within: float, upto: Any = None
) -> Finding:
    """Claim that a column stays within a share of its value at a reference."""
    claim = f"{column} stays within {within:.0%} of its value at {along} {reference}"
    claim += "" if upto is None else f", up to {upto}"
    index = list(evidence.table.keys).index(along)
    verdicts, changes = [], []
    most = as_number(upto)
    table = evidence.table
    if most is not None:
        near = tuple(
            row for row in table.rows if (as_number(row[index]) or 0.0) <= most * (1 + 1e-9)
        )
        evidence = Evidence(replace(table, rows=near), evidence.root)
    count = len(evidence.table.rows)
    for rows in _groups(evidence.table, along):
        base = next((row for row in rows if equal(row[index], reference)), None)
        scale = evidence.table.value(base, column) if base is not None else None
        for row in rows:
            if row == base:
                continue
            if base is None or scale is None or scale.value == 0.0:
                verdicts.append(UNDECIDED)
                continue
            change = evidence.difference(row, base, column, 1 - (1 - LEVEL) / max(count - 1, 1))
            if change is None:
                verdicts.append(UNDECIDED)
                continue
            reach = within * abs(scale.value)
            changes.append(change.value / scale.value)
            verdicts.append(_inside(change.interval, reach))
    if not changes:
        return Finding(claim, UNDECIDED, "the values are not there")
    worst = max(changes, key=abs)
    return Finding(claim, together(verdicts), f"the largest change is {worst:+.1%}", worst)


def _steps(
    evidence: Evidence, column: str, pairs: Sequence[tuple[Key, Key]], direction: str, claim: str
) -> Finding:
    check_choice(direction, ("falls", "rises"), "direction")
    level = 1 - (1 - LEVEL) / max(len(pairs), 1)
    differences = [
        evidence.difference(*(pair if direction == "falls" else pair[::-1]), column, level)
        for pair in pairs
    ]
    return _decided(differences, claim, "steps")


def _decided(differences: Sequence[Difference | None], claim: str, what: str) -> Finding:
    """Join comparisons, whose differences are claimed to be above 0."""
    known = [each for each in differences if each is not None]
    verdicts = [each.verdict for each in known]
    verdict = (
        together(verdicts) if len(known) == len(differences) else together([*verdicts, UNDECIDED])
    )
    right = sum(each.value > 0 for each in known)
    ties = sum(each.value == 0 for each in known)
    detail = (
        f"{right} of {len(differences)} {what} have this sign"
        + (f", {ties} are ties" if ties else "")
        + f"; {verdicts.count(HOLDS)} decided for it, {verdicts.count(FAILS)} against it"
    )
    counts = [each.n for each in known if each.n is not None]
    return Finding(claim, verdict, detail, n=min(counts, default=None))


def _groups(table: Table, along: str) -> list[list[Key]]:
    """Return rows that agree in every key but one."""
    index = list(table.keys).index(along)
    groups: dict[Key, list[Key]] = {}
    for row in table.rows:
        groups.setdefault((*row[:index], *row[index + 1 :]), []).append(row)
    return list(groups.values())


def _numeric(row: Key, along: str, evidence: Evidence) -> float:
    value = row[list(evidence.table.keys).index(along)]
    number = as_number(value)
    if number is None:
        raise BadInput(f"{along} = {value!r}", "has no order", "name the order with check: order")
    return number


def _ratio_bounds(of: Interval | None, over: Interval | None) -> tuple[float, float]:
    """Bound a ratio of positive values by the ends of the two intervals: wider than need be."""
    if of is None or over is None or over.low <= 0:
        return -math.inf, math.inf
    return of.low / over.high, of.high / over.low


def _inside(interval: Interval | None, reach: float) -> Verdict:
    if interval is None:
        return UNDECIDED
    if -reach <= interval.low and interval.high <= reach:
        return HOLDS
    return FAILS if interval.low > reach or interval.high < -reach else UNDECIDED


CHECKS: dict[str, Callable[..., Finding]] = {
    "monotone": monotone,
    "order": order,
    "rank-correlation": correlation,
    "less": less,
    "ratio": ratio,
    "bound": bound,
    "stable": stable,
}
"""Kinds of checks; a new one is a function and a line here."""
