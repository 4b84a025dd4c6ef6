"""Published beside measured, as a page: ``python -m benchmarks.reproductions [OUTPUT.json ...]``.

Stores the given outputs of ``advpure reproduce SEED:NAME --size SIZE --json`` in
``experiments/measured/`` without the place they were computed in, and writes ``docs/measured.md``
from all that are stored there. So no number of that page is typed by hand.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advpure.sweeps.columns import Column, written
from advpure.sweeps.experiment import Experiment, load_experiment, summaries

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "experiments" / "measured"
PAGE = ROOT / "docs" / "measured.md"
PICTURES = ROOT / "docs" / "pictures"
_ABOUT = """\
# Measured beside published

Every table and figure that `advpure reproduce` has measured for this repository, each from the run
that its command repeats. In brackets stand 95 % intervals over images; published numbers are in
italics, with their standard deviation over images where the paper gives one. *Scaled down* means
fewer images, smaller networks or another data set than the paper's, as each entry says: such
numbers show an effect and its order, they do not confirm a published value.
Written by `python -m benchmarks.reproductions` from `experiments/measured/`.
"""


def store(output: Path) -> Path:
    """Keep one output and its picture under experiment and size, without this machine's places.

    Raises:
        ValueError: for a run that is not finished, or one without `--plot` where a picture of
            earlier numbers is shown.
    """
    found = json.loads(output.read_text())
    if found["failed"] or found["left"]:
        raise ValueError(f"{output} is not finished")
    found["sweep"] = f"runs/{Path(found['sweep']).name}"
    seed, name = found["experiment"].split(":")
    target = MEASURED / f"{seed}-{name}-{found['size']}.json"
    picture, drawn = PICTURES / f"{target.stem}.png", found.pop("plot", None)
    if drawn is not None:
        shutil.copyfile(drawn, picture)
    elif picture.is_file():
        raise ValueError(f"{output} has no picture, and {picture.name} is one; add --plot FILE.png")
    target.write_text(json.dumps(found, indent=1) + "\n")
    return target


def stored() -> list[dict[str, Any]]:
    """Return what is stored, in the papers' order and that of the sizes in a file."""
    found = []
    for id, _, sizes in summaries():
        seed, name = id.split(":")
        paths = (MEASURED / f"{seed}-{name}-{size}.json" for size in sizes)
        found += [json.loads(path.read_text()) for path in paths if path.is_file()]
    return found


def page() -> str:
    """Return the page."""
    return "\n".join([_ABOUT, *map(section, stored())])


def section(found: Mapping[str, Any], heading: bool = True, folder: str = "") -> str:
    """Return one experiment: what was run, measured beside published, and what it shows.

    Args:
        found: The stored output.
        heading: Whether to begin with a heading.
        folder: Where the pages lie, seen from the page that is written.
    """
    experiment = load_experiment(found["experiment"], found["size"])
    command = f"advpure reproduce {found['experiment']} --size {found['size']}"
    lines = [f"## {found['experiment']}, {found['size']}: {found['title']}", ""] if heading else []
    lines += [
        f"`{command}` ({found['label']}). {found['about']}", "", table(found, experiment), "",
    ]  # fmt: skip
    name = f"{found['experiment'].replace(':', '-')}-{found['size']}.png"
    if (PICTURES / name).is_file():
        lines += [f"![{found['title']}]({folder}pictures/{name})", ""]
    lines += [f"* {check['claim']}: **{check['verdict']}** ({_detail(check)})"
              for check in found["checks"]]  # fmt: skip
    lines += [f"* Note: {note}" for note in found["notes"]]
    return "\n".join([*lines, ""] if heading else lines)


def table(found: Mapping[str, Any], experiment: Experiment) -> str:
    """Return the rows as a table; a column that was measured nowhere is left out."""
    columns = {
        name: column
        for name, column in experiment.columns.items()
        if any(row.get(name) is not None for row in found["rows"])
    }
    heads = [*experiment.keys, *(_head(name, column) for name, column in columns.items()), "n"]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for row in found["rows"]:
        cells = [str(row[key]) for key in experiment.keys]
        cells += [_cell(row, name, column) for name, column in columns.items()]
        lines.append(f"| {' | '.join([*cells, str(row['n'])])} |")
    return "\n".join(lines)


def _head(name: str, column: Column) -> str:
    return f"{name} %" if column.unit == "percent" else name


def _cell(row: Mapping[str, Any], name: str, column: Column) -> str:
    """Write a value, its interval and the published value."""
    if row.get(name) is None:
        return ""
    percent = column.unit == "percent"
    value = row[name]
    known = isinstance(value, int | float) and not isinstance(value, bool)
    text = written(value, column.unit) if known else str(value)
    if row.get(f"{name}_interval"):
        text += f" [{', '.join(_number(end, percent) for end in row[f'{name}_interval'])}]"
    printed = row["published"].get(name)
    if printed is not None:
        text += f" *{_number(printed['value'], percent)}"
        text += f" ± {_number(printed['std'], percent)}*" if "std" in printed else "*"
    return text


def _number(value: Any, percent: bool) -> str:
    """Write a number with as many digits as it can carry."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if percent:
        return f"{100 * value:.1f}"
    return f"{value:.4g}"


def _detail(check: Mapping[str, Any]) -> str:
    return f"{check['detail']}; n={check['n']}" if check["n"] is not None else check["detail"]


def main(outputs: list[str]) -> None:
    """Store what is given, then write the page."""
    for output in outputs:
        print(store(Path(output)).relative_to(ROOT))
    PAGE.write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
