"""The standard attack beside those of other libraries: ``python -m benchmarks.engines``.

Every attack gets the same images, the same defense under the same randomness and the same number of
evaluations an image, and all are decided alike. What is measured goes into ``engines.json``, run by
run, so that what is interrupted goes on; the tables of ``docs/attacks.md`` are written from it by
``python -m benchmarks.engines --write``. Words name what is measured, in their order: the start of
a case, such as ``cifar10:cm``, or all without.

The rows of ``networks`` want files of adversarially trained networks, published with the verifier
alpha-beta-CROWN, in the folder that ``ADVPURE_NETWORKS`` names; those of ``cifar10`` the data set.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from advpure.analysis.robustness.protocol import ADVERSARIAL
from advpure.analysis.robustness.study import Robustness
from advpure.base.display import percent_interval
from advpure.base.units import parse_eps
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import mean_interval, wilson
from advpure.sweeps.comparisons import subtract
from benchmarks.small_networks import small_network

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "engines.json", HERE.parent / "docs" / "attacks.md"


class Case(NamedTuple):
    """A defense, how it draws, its images, and the evaluations an image that all attacks get.

    `table` is where it stands; `network` a file, or a shipped classifier.
    """

    defense: str
    randomness: Literal["fixed", "fresh"]
    n: int
    budget: int
    more: Mapping[str, Any] = {}
    table: str = "digits"
    eps: str | float = 0.15
    network: str = ""
    dataset: str = "digits"

    @property
    def name(self) -> str:
        """What it is called in its table."""
        return self.network or f"{self.defense} {self.randomness}"

    @property
    def key(self) -> str:
        """What it is called in the file."""
        return f"{self.table}:{self.name}"


class Rival(NamedTuple):
    """An attack and its options under fixed and under fresh randomness.

    `only` is the randomness or the table for which it is meant; empty for all but `networks`.
    """

    name: str
    fixed: Mapping[str, Any] = {}
    fresh: Mapping[str, Any] = {}
    only: str = ""


_CIFAR: dict[str, Any] = {"table": "cifar10", "dataset": "cifar10", "eps": "2/255"}
_ROBUST: dict[str, Any] = {"table": "networks", "defense": "none", "randomness": "fixed", "n": 100}
_L2 = {"norm": "l2"}
CASES = (
    Case("none", "fixed", 30, 500),
    Case("cm", "fixed", 30, 500),
    Case("cm", "fresh", 30, 500),
    Case("ddpm", "fixed", 10, 100, {"t": 20, "tile": 16}),
    Case(**_ROBUST, budget=2000, network="digits-robust-linf"),
    Case(**_ROBUST, budget=2000, network="digits-robust-l2", eps=0.5, more=_L2),
    *(
        Case(**_ROBUST, budget=2000, network=network, dataset="cifar10", eps=eps)
        for network, eps in (
            ("cifar_conv_small_pgd.pth", "2/255"),
            ("resnet2b.pth", "2/255"),
            ("resnet4b.pth", "2/255"),
        )
    ),
    Case("none", "fixed", 10, 500, {"tile": 16}, **_CIFAR),
    Case("cm", "fixed", 10, 100, {"tile": 16}, **_CIFAR),
    Case("cm", "fresh", 10, 500, {"tile": 16}, **_CIFAR),
    Case("ddpm", "fixed", 10, 40, {"t": 20, "tile": 16}, **_CIFAR),
    Case(
        **_ROBUST,
        budget=2000,
        network="cifar10-robust-l2",
        dataset="cifar10",
        eps=0.5,
        more=_L2,
    ),
    Case(**_ROBUST, budget=2000, network="cifar10-robust-linf", dataset="cifar10", eps="8/255"),
)
_STEPS = {"steps": 497, "rel_stepsize": 0.02}
RIVALS = (
    Rival("standard"),
    Rival("standard", only="networks"),
    Rival("autoattack:standard", only="networks"),
    Rival("foolbox:LinfPGD", _STEPS, _STEPS),
    Rival("torchattacks:AutoAttack", {}, {"version": "rand"}),
    Rival("torchattacks:EOTPGD", {}, {"steps": 30, "alpha": 0.02, "eot_iter": 16}, "fresh"),
    Rival("autoattack:standard", only="fixed"),
    Rival("autoattack:rand", {}, {"eot_iter": 16, "n_iter": 14, "n_restarts": 1}, "fresh"),
)


def _rivals(case: Case) -> list[Rival]:
    if case.table == "networks":
        return [each for each in RIVALS if each.only == case.table]
    return [each for each in RIVALS if each.only in ("", case.randomness)]


def _network(case: Case) -> Any:
    """Return the classifier of a case, None where its file is not there."""
    if not case.network.endswith(".pth"):
        return case.network or "auto"
    path = Path(os.environ.get("ADVPURE_NETWORKS", ".")) / case.network
    return small_network(path) if path.is_file() else None


def study(case: Case, rival: Rival, classifier: Any) -> Robustness:
    """Return the run of an attack."""
    options: dict[str, Any] = {"budget": case.budget}
    options |= rival.fixed if case.randomness == "fixed" else rival.fresh
    if options.get("steps", 0) > case.budget:
        options["steps"] = case.budget - 3
    if rival.name == "torchattacks:EOTPGD":  # in steps of an eighth of the radius
        options["alpha"] = parse_eps(case.eps) * 0.02 / 0.15
    return Robustness(
        dataset=case.dataset,
        defense=case.defense,
        classifier=None if classifier == "auto" else classifier,
        n=case.n,
        eps=case.eps,
        randomness=case.randomness,
        attack=rival.name,
        attack_options=options,
        **case.more,
    )


def measure(names: Sequence[str] = ()) -> None:
    """Run what the file lacks."""
    cases = [case for name in names or ("",) for case in CASES if case.key.startswith(name)]
    for case in cases:
        classifier = _network(case)
        for rival in _rivals(case) if classifier is not None else ():
            if rival.name in _stored().get(case.key, {"attacks": {}})["attacks"]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                report = study(case, rival, classifier).run(out=Path(folder) / "run")
            accuracy = report.estimate(ADVERSARIAL, report.headline_rate)
            library = report.library() if report.claims else {}
            results = _stored()  # which another process may have added to
            known = results.setdefault(
                case.key, {"n": case.n, "budget": case.budget, "attacks": {}}
            )
            known["attacks"][rival.name] = {
                "library": report.settings["attack"].get("library", "advpure"),
                "options": {**(rival.fixed if case.randomness == "fixed" else rival.fresh)},
                "right": {str(i): value for i, value in (accuracy.images() or {}).items()},
                "says": library["says"].value if library else None,
                "seconds": round(report.seconds, 1),
            }
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(case.key, rival.name, accuracy.value, f"{report.seconds:.0f} s", flush=True)


def _stored() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def _estimate(right: Mapping[str, float]) -> Estimate:
    values = {int(i): value for i, value in right.items()}
    if set(values.values()) <= {0.0, 1.0}:
        return Estimate.of(wilson(round(sum(values.values())), len(values)), values)
    return Estimate.of(mean_interval(list(values.values()), within=(0, 1)), values)


def render(results: Mapping[str, Any], table: str) -> str:
    """Write the results as a Markdown table, of each attack the accuracy that it leaves."""
    lines = [
        f"| {'network' if table == 'networks' else 'defense'} | evaluations | attack | its library "
        "says | leaves, decided here | standard minus that |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    mine = {case.key: case for case in CASES if case.table == table}
    for key, case in results.items():
        if key not in mine or not {"standard"} < set(case["attacks"]):
            continue  # nothing to compare yet
        ours = _estimate(case["attacks"]["standard"]["right"])
        for name, found in sorted(case["attacks"].items(), key=lambda each: each[0] != "standard"):
            own = _estimate(found["right"])
            says = "" if found["says"] is None else f"{100 * found['says']:.1f}"
            gap = "" if name == "standard" else _percent(subtract(ours, own, 0.95))
            about = mine[key].name.removesuffix(".pth")
            if table == "networks":
                about += f" {mine[key].more.get('norm', 'linf')} {mine[key].eps}"
            lines.append(
                f"| {about} (n={case['n']}) | {case['budget']} | `{name}` | {says} | "
                f"{percent_interval(own)} | {gap} |"
            )
    if len(lines) == 2:
        lines = [f"Not measured yet; `python -m benchmarks.engines {table}` does."]
    return "\n".join(lines) + "\n"


def _percent(difference: Any) -> str:
    if difference.interval is None:  # every image has the same difference
        return f"{100 * difference.value:.1f}, on every image"
    low, high = difference.interval
    return f"{100 * difference.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def write() -> None:
    """Put the tables into the page."""
    text, results = PAGE.read_text(), json.loads(RESULTS.read_text())
    for table in dict.fromkeys(case.table for case in CASES):
        start = f"<!-- generated: engines-{table} -->\n"
        head, rest = text.split(start)
        text = head + start + render(results, table) + rest[rest.index("<!-- end -->") :]
    PAGE.write_text(text)


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, or write the tables."""
    write() if "--write" in arguments else measure(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
