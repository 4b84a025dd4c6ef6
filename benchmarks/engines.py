"""The standard attack beside those of other libraries: ``python -m benchmarks.engines``.

Every attack gets the same images, the same defense under the same randomness and the same number of
evaluations an image, and all are decided alike. What is measured goes into ``engines.json``, run by
run; the table of ``docs/attacks.md`` is written from it by ``python -m benchmarks.engines
--write``.
"""

import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advpure.analysis.robustness.protocol import ADVERSARIAL
from advpure.analysis.robustness.study import Robustness
from advpure.base.display import percent_interval
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import mean_interval, wilson
from advpure.sweeps.comparisons import subtract

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "engines.json", HERE.parent / "docs" / "attacks.md"
NAME = "engines"


class Case(NamedTuple):
    """A defense, how it draws, its images, and the evaluations an image that all attacks get."""

    defense: str
    randomness: str
    n: int
    budget: int
    more: Mapping[str, Any] = {}

    @property
    def key(self) -> str:
        """What it is called in the file."""
        return f"{self.defense} {self.randomness}"


class Rival(NamedTuple):
    """An attack and its options under fixed and under fresh randomness."""

    name: str
    fixed: Mapping[str, Any] = {}
    fresh: Mapping[str, Any] = {}


CASES = (
    Case("none", "fixed", 30, 500),
    Case("cm", "fixed", 30, 500),
    Case("cm", "fresh", 30, 500),
    Case("ddpm", "fixed", 10, 100, {"t": 20, "tile": 16}),
)
RIVALS = (
    Rival("standard"),
    Rival(
        "foolbox:LinfPGD",
        {"steps": 497, "rel_stepsize": 0.02},
        {"steps": 497, "rel_stepsize": 0.02},
    ),
    Rival(
        "torchattacks:AutoAttack",
        {},
        {"version": "rand"},
    ),
    Rival("torchattacks:EOTPGD", {}, {"steps": 30, "alpha": 0.02, "eot_iter": 16}),
    Rival("autoattack:standard", {}, {}),
    Rival("autoattack:rand", {}, {"eot_iter": 16, "n_iter": 14, "n_restarts": 1}),
)
"""An attack that has nothing for a way of drawing is left out there, see `_rivals`."""
_ONLY = {"torchattacks:EOTPGD": "fresh", "autoattack:rand": "fresh", "autoattack:standard": "fixed"}


def _rivals(case: Case) -> list[Rival]:
    return [each for each in RIVALS if _ONLY.get(each.name, case.randomness) == case.randomness]


def study(case: Case, rival: Rival) -> Robustness:
    """Return the run of an attack."""
    options: dict[str, Any] = {"budget": case.budget}
    options |= rival.fixed if case.randomness == "fixed" else rival.fresh
    if "steps" in options and options["steps"] > case.budget:
        options["steps"] = case.budget - 3
    return Robustness(
        dataset="digits",
        defense=case.defense,
        n=case.n,
        eps=0.15,
        randomness=case.randomness,  # type: ignore[arg-type]
        attack=rival.name,
        attack_options=options,
        **case.more,
    )


def measure() -> None:
    """Run what the file lacks."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for case in CASES:
        known = results.setdefault(case.key, {"n": case.n, "budget": case.budget, "attacks": {}})
        for rival in _rivals(case):
            if rival.name in known["attacks"]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                report = study(case, rival).run(out=Path(folder) / "run")
            accuracy = report.estimate(ADVERSARIAL, report.headline_rate)
            library = report.library() if report.claims else {}
            known["attacks"][rival.name] = {
                "library": report.settings["attack"].get("library", "advpure"),
                "options": {**(rival.fixed if case.randomness == "fixed" else rival.fresh)},
                "right": {str(i): value for i, value in (accuracy.images() or {}).items()},
                "says": library["says"].value if library else None,
                "seconds": round(report.seconds, 1),
            }
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(case.key, rival.name, accuracy.value, f"{report.seconds:.0f} s", flush=True)


def _estimate(right: Mapping[str, float]) -> Estimate:
    values = {int(i): value for i, value in right.items()}
    if set(values.values()) <= {0.0, 1.0}:
        return Estimate.of(wilson(round(sum(values.values())), len(values)), values)
    return Estimate.of(mean_interval(list(values.values()), within=(0, 1)), values)


def render(results: Mapping[str, Any]) -> str:
    """Write the results as a Markdown table, of each attack the accuracy that it leaves."""
    lines = [
        "| defense | evaluations | attack | its library says | leaves, decided here | "
        "standard minus that |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, case in results.items():
        ours = _estimate(case["attacks"]["standard"]["right"])
        for name, found in case["attacks"].items():
            own = _estimate(found["right"])
            says = "" if found["says"] is None else f"{100 * found['says']:.1f}"
            gap = "" if name == "standard" else _percent(subtract(ours, own, 0.95))
            lines.append(
                f"| {key} (n={case['n']}) | {case['budget']} | `{name}` | {says} | "
                f"{percent_interval(own)} | {gap} |"
            )
    return "\n".join(lines) + "\n"


def _percent(difference: Any) -> str:
    low, high = difference.interval
    return f"{100 * difference.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def write() -> None:
    """Put the table into the page."""
    block = re.compile(rf"(<!-- generated: {NAME} -->\n).*?(<!-- end -->)", re.DOTALL)
    table = render(json.loads(RESULTS.read_text()))
    PAGE.write_text(block.sub(lambda found: found[1] + table + found[2], PAGE.read_text()))


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, or write the table."""
    write() if "--write" in arguments else measure()


if __name__ == "__main__":
    main(sys.argv[1:])
