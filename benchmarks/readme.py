"""Fill the numbers of the README and of docs: ``python -m benchmarks.readme``.

Every block between ``<!-- generated: NAME -->`` and ``<!-- end -->`` of a page in `PAGES` is
written by the function of that name below, from ``experiments/measured/*.json`` (outputs of
``advpure ... --json``, made by ``python -m benchmarks.readme --measure``),
``benchmarks/results.json`` and the registries. So no number there is typed by hand. The picture of
the verdicts is drawn from the same files.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advpure.base.display import percent_interval
from advpure.loading import load_purifier
from advpure.models import list_models, model_path
from advpure.networks.weights import load_network
from advpure.plots.charts import Points, Words, dots
from advpure.purifiers import PURIFIERS
from advpure.statistics.rates import Rate
from benchmarks import certification_samples, inference, kernels, precision, until
from benchmarks import stored as stored_graphs
from benchmarks.table import render as render_benchmarks

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "experiments" / "measured"
PAGES = tuple(
    ROOT / page
    for page in (
        "README.md",
        *(
            f"docs/{name}.md"
            for name in (
                "boosting",
                "certified-defenses",
                "defenses",
                "networks",
                "robust-training",
                "rrcm",
                "speed",
                "until",
            )
        ),
    )
)
VERDICTS = ROOT / "docs" / "pictures" / "verdicts.png"
PAPER = " --protocol paper"
_BOTH = {
    **{f"attack-{name}": f"advpure attack --defense {name} --fix-random"
       for name in ("cm", "cm-ft", "onestep-edm", "none")},
    **{
        f"attack-digits-{name}": f"advpure attack --dataset digits --defense {name} --fix-random"
        for name in ("cm", "onestep-edm", "onestep-ddpm", "none")
    },
    "attack-cm-fresh": "advpure attack --defense cm",
}  # fmt: skip
"""Attacks that are run twice: as they stand, and under the paper's protocol."""
_PAPER_ALONE = {
    "attack-cm-transfer": "advpure attack --defense cm --fix-random --transfer-from 1",
    "attack-digits-dpm": "advpure attack --dataset digits --defense dpm --fix-random",
}
_GENERATORS = ("cifar10-cm", "cifar10-cm-conditional", "cifar10-ct-conditional")
_LONG = {
    "attack-digits-dpm": _PAPER_ALONE["attack-digits-dpm"],
    **{f"generated-{name}": f"advpure boost --dataset cifar10 --weights {name} -n 300 --steps 1 "
       "--reference train/first-5000 --classifier cifar10-gaussian-025 --metrics frechet-classifier"
       for name in _GENERATORS},
}  # fmt: skip
"""Made only where they are named: an hour or more of one core, or the whole of CIFAR-10."""
COMMANDS = {
    **_BOTH,
    **{f"{name}-paper": line + PAPER for name, line in {**_BOTH, **_PAPER_ALONE}.items()},
    "cr-cm": "advpure cr --eps 8/255",
    "boost-digits": "advpure boost --dataset digits -n 400 --metrics frechet-classifier",
}
_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def measure(name: str) -> None:
    """Run the command of a name and store what it printed, without the place it ran in."""
    command = (COMMANDS | _LONG)[name]
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {}
        for key, extra in (("json", ["--json"]), ("text", [])):
            done = subprocess.run(
                [sys.executable, "-c", "from advpure.cli import main; main()",
                 *shlex.split(command)[1:], *extra],
                cwd=folder, capture_output=True, text=True, check=True,
            )  # fmt: skip
            found[key] = json.loads(done.stdout) if key == "json" else done.stdout.splitlines()
        if Path(found["json"]["run"]).is_absolute():
            raise ValueError(f"{command} names a place of this machine")
    del found["json"]["seconds"]
    stored = {"command": command, "printed": found["text"], "result": found["json"]}
    MEASURED.mkdir(parents=True, exist_ok=True)
    (MEASURED / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")


def _stored(name: str) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text())
    return stored


def _rate(stored: dict[str, Any], stage: str) -> Rate:
    """Return the rate that decides: one draw under fixed randomness, the mean under fresh."""
    result = stored["result"]
    fixed = result["settings"]["decisions"]["randomness"] == "fixed"
    rate = result["stages"][stage]["one_shot" if fixed else "mean"]
    low, high = rate["interval"] if "interval" in rate else (rate["low"], rate["high"])
    return Rate(rate["value"], rate["n"], low, high, rate.get("method", ""))


def _by_attack(name: str) -> dict[str, dict[str, Any]]:
    """Return the stored runs of a command by their attack; what a file holds its settings tell."""
    files = [file for file in (name, f"{name}-paper") if (MEASURED / f"{file}.json").is_file()]
    runs = [_stored(file) for file in files]
    return {run["result"]["settings"]["attack"]["name"]: run for run in runs}


def first_results() -> str:
    """Show what the two main commands print."""
    return _printed("attack-cm", "cr-cm")


def boosted_first() -> str:
    """Show what the command of boosting prints."""
    return f"<!-- not run: minutes; its output is stored -->\n{_printed('boost-digits')}"


def _printed(*names: str) -> str:
    lines = ["```text"]
    for name in names:
        stored = _stored(name)
        lines += [f"$ {stored['command']}", *(line.rstrip() for line in stored["printed"])]
    return "\n".join([*lines, "```"])


def accuracies() -> str:
    """Tabulate the stored attacks: the standard verdict beside that of the paper's protocol.

    A cell without a file stays empty.
    """
    lines = [
        "| command | clean % | noise % | standard % | paper's PGD-40 % | n |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, line in {**_BOTH, **_PAPER_ALONE}.items():
        runs = _by_attack(name)
        any_ = next(iter(runs.values()))
        cells = [_rate(any_, "clean"), _rate(any_, "noise")]
        cells += [_rate(runs[a], "adversarial") if a in runs else None for a in ("standard", "pgd")]
        texts = (percent_interval(cell) for cell in cells)
        lines.append(f"| `{line}` | {' | '.join(texts)} | {any_['result']['n']} |")
    return "\n".join(lines)


def draw_verdicts() -> Path:
    """Draw the digits' rows of that table: what noise, the paper's attack and ours leave."""
    names = [name for name in _BOTH if name.startswith("attack-digits-")]
    runs = {name: _by_attack(name) for name in names}
    stages = {
        "noise in the ball": ("standard", "noise"),
        "paper's protocol, PGD-40": ("pgd", "adversarial"),
        "standard attack": ("standard", "adversarial"),
    }
    groups = {}
    for label, (attack, stage) in stages.items():
        rates = [_rate(runs[name][attack], stage) for name in names]
        groups[label] = Points(
            x=[100 * rate.value for rate in rates],
            y=list(range(len(rates))),
            x_low=[100 * rate.low for rate in rates],
            x_high=[100 * rate.high for rate in rates],
        )
    result = runs[names[0]]["standard"]["result"]
    threat = result["settings"]["threat_model"]
    words = Words(
        x="accuracy, %",
        y="",
        title="The same defenses, a weak and a strong attack",
        caption=f"handwritten digits, {result['n']} images, {threat['norm']} {threat['eps']:g}, "
        "fixed randomness; bars: 95 % for new images",
    )
    categories = [name.removeprefix("attack-digits-") for name in names]
    return dots(groups, categories, VERDICTS, words)


def defenses() -> str:
    """Tabulate the purifiers with their default strength's cost."""
    lines = ["| name | what | network evaluations |", "| --- | --- | --- |"]
    for name in PURIFIERS:
        purifier = load_purifier(name, "digits")
        cost, votes = purifier.chain.evaluations, PURIFIERS.get(name).votes
        more = "" if purifier.is_random else ", no noise"
        more += f" a pass, {cost * votes} for {votes} votes" if votes > 1 else ""
        lines.append(f"| `{name}` | {PURIFIERS.about(name)} | {cost}{more} |")
    return "\n".join(lines)


def cost_of_certificates() -> str:
    """Tabulate what is certified on digits beside what a sample costs."""
    results = json.loads(inference.RESULTS.read_text())
    measured = {
        size: json.loads((MEASURED / f"004-claims-{size}.json").read_text()) for size in results
    }
    return inference.table(results, measured)


def models() -> str:
    """Tabulate the shipped networks with their measured quality."""
    sigmas = (0.17, 0.25, 0.5, 1.0)
    heads = [
        "network",
        "images seen",
        "size",
        "n",
        "clean",
        *(f"sigma {sigma}" for sigma in sigmas),
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for name in list_models():
        path = model_path(name)
        metadata = load_network(path).metadata
        rates = {rate["what"]: rate for rate in metadata["quality"]}
        cells = [_quality(rates, "test accuracy")]
        cells += [
            _quality(rates, f"accuracy after one-shot denoising of sigma {s} ")
            or _quality(rates, f"accuracy under noise {s:g} ")
            for s in sigmas
        ]
        seen, size = f"{metadata['images_seen']:,}", f"{path.stat().st_size / 1e6:.1f} MB"
        count = f"{next(iter(rates.values()))['n']:,}"
        lines.append(f"| `{name}` | {seen} | {size} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def robust() -> str:
    """Tabulate the networks that were trained on attacked images or to tell generated ones."""
    lines = [
        "| network | n | accuracy | under PGD of 20 steps | test images taken for real "
        "| generated images taken for real |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in list_models():
        metadata = load_network(model_path(name)).metadata
        if metadata["task"] != "joint" and "trained_eps" not in metadata:
            continue
        rates = {rate["what"]: rate for rate in metadata["quality"]}
        attacked = next((what for what in rates if "under PGD" in what), "")
        fakes = next((what for what in rates if what.startswith("images of ")), "")
        threat = " ".join(attacked.split()[-2:])
        cells = [
            _quality(rates, "test accuracy"),
            f"{threat}: {_quality(rates, attacked)}" if attacked else "",
            _quality(rates, "test images more likely real"),
            f"`{metadata['generator']}`: {_quality(rates, fakes)}" if fakes else "",
        ]
        counts = sorted({rate["n"] for rate in rates.values()}, reverse=True)
        n = ", ".join(f"{count:,}" for count in counts)
        lines.append(f"| `{name}` | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _quality(rates: dict[str, dict[str, Any]], what: str) -> str:
    """Write the rate whose description begins so, per cent with its interval, or nothing."""
    for found, rate in rates.items():
        if found.startswith(what):
            share = rate["correct"] / rate["n"]
            return f"{100 * share:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
    return ""


def benchmarks() -> str:
    """Show the benchmarks' table."""
    return render_benchmarks(json.loads((ROOT / "benchmarks" / "results.json").read_text()))


def until_answered() -> str:
    """Show what stopping early saves."""
    return until.tables(json.loads(until.RESULTS.read_text()))


def precisions() -> str:
    """Show the precisions beside float32."""
    return precision.render(json.loads(precision.RESULTS.read_text()))


def networks_before_and_now() -> str:
    """Show the networks of two commits side by side."""
    return kernels.render(json.loads(kernels.RESULTS.read_text()))


def stored_steps() -> str:
    """Show what storing the graphs of steps saves."""
    return stored_graphs.render(json.loads(stored_graphs.RESULTS.read_text()))


def certificate_samples() -> str:
    """Show what certificates that stop early save, and how near their error is to alpha."""
    return certification_samples.tables(json.loads(certification_samples.RESULTS.read_text()))


def boosted(size: str, decimals: int) -> str:
    """Tabulate how boosting changes the distance of generated images, from 002:table-1 to 3.

    Args:
        size: Of the three experiments.
        decimals: Digits after the point.
    """
    named = {
        "classifier": "robust classifier, ce",
        "joint-plain-wide": "joint model trained without attacks, reference",
        "joint": "joint model, reference",
        "ce": "joint model, ce",
        "bce": "joint model, bce",
        "ce-bce": "joint model, ce - bce",
        "sgld": "joint model, sgld",
    }
    before = "distance before boosting"
    changes: dict[str, dict[int, str]] = {before: {}}
    for table, key in ((1, "booster"), (2, "loss"), (3, "sampler")):
        path = ROOT / "experiments" / "measured" / f"002-table-{table}-{size}.json"
        for row in json.loads(path.read_text())["rows"]:
            changes[before][row["steps"]] = _within(row, "before", 1, decimals)
            if row[key] in named:
                change = _within(row, "change", 1, decimals)
                changes.setdefault(named[row[key]], {})[row["steps"]] = change
    lines = ["| booster | one step | two steps |", "| --- | --- | --- |"]
    lines += [f"| {name} | {cells[1]} | {cells[2]} |" for name, cells in changes.items()]
    return "\n".join(lines)


def boosted_others(size: str, decimals: int) -> str:
    """Tabulate the same for images that no consistency model made, from 002:table-4."""
    path = ROOT / "experiments" / "measured" / f"002-table-4-{size}.json"
    lines = ["| generator | before boosting | change |", "| --- | --- | --- |"]
    for row in json.loads(path.read_text())["rows"]:
        cells = (_within(row, name, 1, decimals) for name in ("before", "change"))
        lines.append(f"| {row['generator']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def generated() -> str:
    """Tabulate what consistency models of CIFAR-10 generate in one step, before any boosting."""
    lines = ["| network | Frechet distance | n |", "| --- | --- | --- |"]
    for name in _GENERATORS:
        before = _stored(f"generated-{name}")["result"]["before"]
        row = {"before": before["value"], "before_interval": before["interval"]}
        lines.append(f"| `{name}` | {_within(row, 'before', 1, 1)} | {before['n']} |")
    return "\n".join(lines)


def boosted_defense() -> str:
    """Tabulate what a booster behind a purifier changes, from 002:defense."""
    path = ROOT / "experiments" / "measured" / "002-defense-small.json"
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in json.loads(path.read_text())["rows"]:
        rows.setdefault(row["purifier"], {})[row["booster"]] = row
    lines = [
        "| purifier | robust %, without and with the booster | compression rate | certified % |",
        "| --- | --- | --- | --- |",
    ]
    for purifier, sides in rows.items():
        both = [sides["none"], sides["joint"]]
        cells = [
            ", ".join(_within(row, name, scale, digits) for row in both)
            for name, scale, digits in (("robust", 100, 1), ("cr", 1, 3), ("certified", 100, 1))
        ]
        lines.append(f"| `{purifier}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _within(row: dict[str, Any], name: str, scale: float, digits: int) -> str:
    """Write a value of a row with its interval, or that it was not measured."""
    if row.get(name) is None:
        return "not measured"
    low, high = row[f"{name}_interval"]
    texts = (f"{scale * value:.{digits}f}" for value in (row[name], low, high))
    return "{} [{}, {}]".format(*texts)


MAKERS: dict[str, Callable[[], str]] = {
    "boosted-defense": boosted_defense,
    "boosted-first": boosted_first,
    "boosted-others-digits": lambda: boosted_others("small", 2),
    "boosted-others-cifar10": lambda: boosted_others("cifar10", 1),
    "generated-cifar10": generated,
    "boosted-digits": lambda: boosted("small", 2),
    "boosted-cifar10": lambda: boosted("cifar10", 1),
    "first-results": first_results,
    "accuracies": accuracies,
    "defenses": defenses,
    "models": models,
    "robust": robust,
    "cost-of-certificates": cost_of_certificates,
    "benchmarks": benchmarks,
    "certificate-samples": certificate_samples,
    "until": until_answered,
    "precision": precisions,
    "kernels": networks_before_and_now,
    "stored-steps": stored_steps,
}


def render(text: str) -> str:
    """Return a page with every generated block made anew.

    A block whose file has not been made yet says so.
    """

    def fill(block: re.Match[str]) -> str:
        try:
            body = MAKERS[block[2]]()
        except FileNotFoundError as error:
            path = Path(error.filename).relative_to(ROOT).as_posix()
            body = f"Not measured yet: `{path}` is missing."
        return f"{block[1]}{body}\n{block[4]}"

    return _BLOCK.sub(fill, text)


def main(arguments: list[str]) -> None:
    """Measure if asked (all that take no hours, or the names given), then fill the pages."""
    if arguments[:1] == ["--measure"]:
        for name in arguments[1:] or COMMANDS:
            measure(name)
    for page in PAGES:
        page.write_text(render(page.read_text()))
    draw_verdicts()


if __name__ == "__main__":
    main(sys.argv[1:])
