"""Audit every room of the museum and keep what came out: ``python -m museum.record`` in `tests`.

It writes `verdicts.json`, and renews the generated parts of `docs/audit.md` from that file and from
the declarations of the checks.
"""

import functools
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from advpure.analysis.audit.registry import CHECKS
from advpure.analysis.audit.study import Audit
from advpure.base.display import percent_interval
from advpure.statistics.rates import wilson
from advpure.sweeps.claims import is_in_percent, published_claims
from museum.cases import PLANTED, SOUND, Case
from museum.truth import true_robustness

HERE = Path(__file__).parent
VERDICTS = HERE / "verdicts.json"
SHIPPED = HERE / "shipped.json"
UNSEEN = HERE / "unseen.json"
DEFENSES: dict[str, dict[str, Any]] = {
    "none": {},
    "onestep-edm": {},
    "cm": {},
    "cm-ft": {},
    "onestep-ddpm": {},
    "calibrated": {},
    "rrcm": {},
    "ddim": {"t": 20},
    "ddpm": {"t": 20},
    "reverse": {"t": 20},
}
"""Shipped defenses that were audited, and what that is told; the last three take minutes each."""
LONGER: dict[str, dict[str, Any]] = {
    "cm, joint": {"boost": "joint"},
    "vpsde": {"t": 20},
    "dpm": {},
    "pf-ode": {},
    "densepure": {},
}
"""The others, whose cost alone is stated; behind a comma, the booster."""
_ALIKE = ("sample-size", "clean-accuracy", "attack-kinds")
PAGE = HERE.parents[1] / "docs" / "audit.md"


def audited(case: Case, folder: Path, **changes: Any) -> dict[str, Any]:
    """Audit a room; return its verdicts and the number behind that of its own check."""
    report = Audit(**{**case.settings, **changes}).run(out=folder)
    found = {check.name: finding for check, finding in report.findings.items()}
    own = found.get(case.check)
    robust = found.get("sample-size")
    return {
        "name": case.name,
        "check": case.check,
        "robust": None if robust is None or robust.interval is None else _percent(robust.words),
        "verdict": "" if own is None else own.status,
        "words": "" if own is None else own.words,
        "fails": [name for name, each in found.items() if each.status == "fail"],
        "inconclusive": sum(each.status == "inconclusive" for each in found.values()),
        "passes": sum(each.status == "pass" for each in found.values()),
    }


def shipped_audit(defense: str, protocol: str | None) -> Audit:
    """Return the audit of a shipped defense on digits, from nothing."""
    told = {**DEFENSES, **LONGER}[defense]
    return Audit(
        defense=defense.partition(",")[0],
        dataset="digits",
        n=24,
        randomness="fixed",
        protocol=protocol,
        **told,
    )


def priced(defense: str) -> dict[str, Any]:
    """Return what the audit of a shipped defense takes at most, in network evaluations."""
    audit = shipped_audit(defense, None)
    loaded = audit.load()
    assert loaded.loaded is not None
    told = " ".join(f"--{name} {value}" for name, value in LONGER[defense].items())
    return {
        "command": f"advpure audit --dataset digits --defense {audit.defense} {told}".strip(),
        "each": loaded.loaded.defense.evaluations,
        "most": audit.cost(loaded).evaluations,
    }


def judged(defense: str, protocol: str | None, folder: Path) -> dict[str, Any]:
    """Audit a shipped defense on digits, from nothing."""
    report = shipped_audit(defense, protocol).run(out=folder)
    found = {check.name: each for check, each in report.findings.items()}
    robust = found["sample-size"]
    low, high = robust.interval or (float("nan"), float("nan"))
    kinds = {each.status for each in found.values()}
    return {
        "defense": defense,
        "protocol": protocol or "standard",
        "robust": f"{_percent(robust.words):.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        "verdict": next(each for each in ("fail", "inconclusive", "pass") if each in kinds),
        "fails": {name: each.words for name, each in found.items() if each.status == "fail"},
        "inconclusive": [
            name
            for name, each in found.items()
            if each.status == "inconclusive"
            and name not in _ALIKE
            and not each.words.startswith("not measured")
        ],
        "passes": report.passes,
    }


def _percent(words: str) -> float:
    """Return the robust accuracy of a sentence."""
    return float(words.split()[2])


def pages() -> str:
    """Return what the page says of every check."""
    parts = []
    for name in CHECKS.names():
        check = CHECKS.get(name)
        text = sys.modules[f"advpure.analysis.audit.checks.{name.replace('-', '_')}"].__doc__ or ""
        head, _, rest = text.strip().partition("\n")
        cost = "records alone" if check.is_free else f"asks for the {check.needs}"
        if check.thorough:
            cost += ", `--thorough`"
        parts.append(
            f"### {name}\n\n{head} *{check.source}; {cost}.*\n\n{rest.strip()}\n\n"
            f"Fails: {check.threshold}."
        )
    return "\n\n".join(parts)


def tables() -> str:
    """Return the museum as tables."""
    rooms = {room["name"]: room for room in json.loads(VERDICTS.read_text())}
    planted = [
        "| planted | measured % | true % | check | the number behind its failure | others |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case in PLANTED:
        room = rooms[case.name]
        others = ", ".join(f"`{each}`" for each in room["fails"] if each != case.check)
        numbers = f"{_written(room['robust'])} | {_written(room['truth'])}"
        planted.append(f"| {case.name} | {numbers} | `{case.check}` | {room['words']} | {others} |")
    sound = [
        "| sound | measured % | true % | pass | inconclusive | fail |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case in SOUND:
        room = rooms[case.name]
        numbers = f"{_written(room['robust'])} | {_written(room['truth'])}"
        counts = f"{room['passes']} | {room['inconclusive']} | {len(room['fails'])}"
        sound.append(f"| {case.name} | {numbers} | {counts} |")
    return "\n".join([*planted, "", *sound])


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def shipped() -> str:
    """Return the verdicts of the shipped defenses as a table."""
    lines = [
        "| defense | attack | robust accuracy % | verdict | fail | inconclusive, not by cost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in json.loads(SHIPPED.read_text())["measured"]:
        fails = "; ".join(f"`{name}`: {words}" for name, words in each["fails"].items())
        names = ", ".join(f"`{name}`" for name in each["inconclusive"])
        head = f"| `{each['defense']}` | {each['protocol']} | {each['robust']} | {each['verdict']}"
        lines.append(f"{head} | {fails} | {names} |")
    return "\n".join(lines)


def longer() -> str:
    """Return what the audits that are not in the table take."""
    lines = [
        "| command, with `--fix-random` | evaluations a pass | evaluations in all, at most |",
        "| --- | --- | --- |",
    ]
    for each in json.loads(SHIPPED.read_text())["longer"]:
        lines.append(f"| `{each['command']}` | {each['each']} | {each['most']:,} |")
    return "\n".join(lines)


def claims() -> str:
    """Return the published claims by flaw, as a table."""
    known = published_claims()
    lines = [
        "| flaw | what it is | claims | largest fall, points | its toy fails |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code, flaw in known.flaws.items():
        mine = [each for each in known.claims if code in each.flaws]
        falls = [each.drop for each in mine if each.drop is not None and is_in_percent(each)]
        most = f"{max(falls):.1f}" if falls else ""
        words = flaw.toy.split()
        check = f"`{words[words.index('--only') + 1]}`" if "--only" in words else ""
        lines.append(f"| `{code}` | {flaw.about} | {len(mine)} | {most} | {check} |")
    return "\n".join(lines)


def unseen(file: Path = UNSEEN) -> str:
    """Return what an outsider's flaws showed as a table."""
    plants = json.loads(file.read_text())
    counts = Counter(each["verdict"] for each in plants)
    found = wilson(len(plants) - counts["missed"], len(plants))
    refused = f"{counts['refused']} was refused as no intact run, " if counts["refused"] else ""
    lines = [
        f"Of {len(plants)} flaws {counts['caught']} were caught by a check that points at them, "
        f"{refused}{counts['indirect']} by another one, and {counts['missed']} missed: "
        f"{percent_interval(found)} % are not missed.",
        "",
        "| flaw | reported % | outcome | failing checks |",
        "| --- | --- | --- | --- |",
    ]
    for each in plants:
        fails = ", ".join(f"`{name}`" for name in each["fails"])
        head = f"| {each['flaw']} | {_written(each['reported'])} | {each['verdict']}"
        lines.append(f"{head} | {fails} |")
    return "\n".join(lines)


GENERATED = {
    "checks": pages,
    "museum": tables,
    "claims": claims,
    "shipped": shipped,
    "longer": longer,
    "unseen": unseen,
    "unseen-again": functools.partial(unseen, UNSEEN.with_name("unseen_again.json")),
}


def renewed(text: str) -> str:
    """Return the page with its generated parts made anew."""
    for name, make in GENERATED.items():
        start, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, begun, rest = text.partition(start)
        _, ended, after = rest.partition(end)
        assert begun
        assert ended, name
        text = f"{before}{start}{make()}\n{end}{after}"
    return text


def main() -> None:
    """Audit all rooms, or with --shipped what ships, then renew the page; --page only does that."""
    if "--shipped" in sys.argv:
        with tempfile.TemporaryDirectory() as root:
            measured = [
                judged(defense, protocol, Path(root) / f"{defense}-{protocol}")
                for defense in DEFENSES
                for protocol in ("paper", None)
            ]
        found = {"measured": measured, "longer": [priced(each) for each in LONGER]}
        SHIPPED.write_text(json.dumps(found, indent=1) + "\n")
    elif "--page" not in sys.argv:
        with tempfile.TemporaryDirectory() as root:
            rooms = [
                audited(case, Path(root) / str(k)) | {"truth": true_robustness(case)}
                for k, case in enumerate((*PLANTED, *SOUND))
            ]
        VERDICTS.write_text(json.dumps(rooms, indent=1) + "\n")
    PAGE.write_text(renewed(PAGE.read_text()))


if __name__ == "__main__":
    main()
