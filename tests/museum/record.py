"""Audit every room of the museum and keep what came out: ``python -m museum.record`` in `tests`.

It writes `verdicts.json`, with --shipped `shipped.json`, with --pairs `pairs.json`, and renews the
generated parts of `docs/audit.md` from those files and from the declarations of the checks.
"""

import functools
import json
import shlex
import subprocess
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
PAIRS = HERE / "pairs.json"
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
    "vpsde": {"t": 20},
    "dpm": {},
    "pf-ode": {},
    "cm, joint": {"boost": "joint"},
    "densepure": {},
}
"""Shipped defenses and what an audit of them is told; behind a comma, the booster.

From `ddim` on they ask their networks often for one answer, and take minutes each.
"""
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
    return Audit(
        defense=defense.partition(",")[0],
        dataset="digits",
        n=24,
        randomness="fixed",
        protocol=protocol,
        **DEFENSES[defense],
    )


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
    for each in json.loads(SHIPPED.read_text()):
        fails = "; ".join(f"`{name}`: {words}" for name, words in each["fails"].items())
        names = ", ".join(f"`{name}`" for name in each["inconclusive"])
        head = f"| `{each['defense']}` | {each['protocol']} | {each['robust']} | {each['verdict']}"
        lines.append(f"{head} | {fails} | {names} |")
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


def paired(code: str, root: Path) -> dict[str, Any] | None:
    """Run the two attacks of a flaw, with it and without, and compare them; None where none are.

    Args:
        code: The flaw.
        root: Where the run folders go; what is there is not run again.
    """
    lines = published_claims().flaws[code].shipped
    attacks = [line for line in lines if line.startswith("advpure attack ") and " --out " in line]
    if len(attacks) != 2:
        return None
    for line in attacks:
        _printed(line, root)
    (found,) = json.loads(_printed(lines[-1] + " --json", root))["comparisons"]
    row = next(each for each in found["estimates"] if each["at"] == "robust_accuracy")
    return {
        "flaw": code,
        "commands": [line.partition(" --out ")[0] for line in attacks],
        "n": found["images"],
        **{name: row[name] for name in ("first", "second", "difference", "paired", "verdict")},
    }


def _printed(line: str, root: Path) -> str:
    """Return what a command prints, its run folders elsewhere."""
    words = [word.replace("runs/", f"{root}/") for word in shlex.split(line)[1:]]
    code = "from advpure.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def pairs() -> str:
    """Return what the attacks of each flaw leave, with it and without, as a table."""
    lines = [
        "| flaw | with it | robust accuracy % | without | robust accuracy % | change, points | n |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in json.loads(PAIRS.read_text()):
        cells = [f"`{each['flaw']}`"]
        for command, side in zip(each["commands"], ("first", "second"), strict=True):
            cells += [f"`{command}`", _in_percent(each[side])]
        lines.append(f"| {' | '.join([*cells, _in_percent(each['difference']), str(each['n'])])} |")
    return "\n".join(lines)


def _in_percent(estimate: dict[str, Any]) -> str:
    low, high = estimate["interval"]
    return f"{100 * estimate['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


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
    "pairs": pairs,
    "shipped": shipped,
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
    """Audit all rooms, or what is asked for, then renew the page; --page only does that."""
    if "--shipped" in sys.argv:
        with tempfile.TemporaryDirectory() as root:
            measured = [
                judged(defense, protocol, Path(root) / f"{defense}-{protocol}")
                for defense in DEFENSES
                for protocol in ("paper", None)
            ]
        SHIPPED.write_text(json.dumps(measured, indent=1) + "\n")
    elif "--pairs" in sys.argv:
        with tempfile.TemporaryDirectory() as root:
            every = [paired(code, Path(root)) for code in published_claims().flaws]
        PAIRS.write_text(json.dumps([each for each in every if each], indent=1) + "\n")
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
