"""An experiment: one table or figure of a paper as a file, in a small and a full size.

    title: Expected compression rate and robustness under fixed randomness
    about: What it measures, in sentences.
    published: T2                      # table in published/SEED.json
    keys: {purifier: defense, t: t}    # row key: option, see advpure.sweeps.table
    columns:                           # see advpure.sweeps.columns
      cr: {block: cr, at: rows.0}
      pgd_fix: {block: attack, at: robust_accuracy, interval: interval, n: n, unit: percent}
    checks:                            # see advpure.sweeps.checks
      - {check: monotone, column: cr, along: t, direction: falls}
    figure: {draw: compression-robustness, x: cr, y: pgd_fix}
    base: ...                          # and grid, zip, blocks: see advpure.sweeps.sweep
    sizes:
      small: {label: scaled down, about: ..., base: {dataset: digits, n: 100}}
      full: {label: scaled down, about: ..., base: {dataset: cifar10, n: 1000}}

A size has a base, grid, zip and blocks of its own, laid over those of the file, and columns too;
its keys and checks replace those of the file. Labels: `reproduction`, the same setting; `scaled
down`, other data, models or counts; `re-derived`, where the paper does not say enough.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.base.validation import check_choice
from advpure.runs.header import flatten
from advpure.sweeps.columns import Column
from advpure.sweeps.published import PublishedTable, published
from advpure.sweeps.strict_yaml import read_yaml, read_yaml_file
from advpure.sweeps.sweep import Sweep, parse_sweep
from advpure.sweeps.table import Keys

Label = Literal["reproduction", "scaled down", "re-derived"]
_SWEEP = "advpure sweep FILE, or add title, about, keys and columns"
_LAID_OVER = ("base", "grid", "zip", "blocks")


class _Size(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: Label
    about: str
    base: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    zip: dict[str, Any] = {}
    blocks: dict[str, Any] = {}
    keys: dict[str, str | list[Any] | dict[Any, Any]] | None = None
    columns: dict[str, dict[str, Any] | None] = {}
    checks: list[dict[str, Any]] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    about: str
    published: str | None = None
    keys: dict[str, str | list[Any] | dict[Any, Any]]
    columns: dict[str, dict[str, Any]]
    checks: list[dict[str, Any]] = []
    figure: dict[str, Any] | None = None
    base: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    zip: dict[str, Any] = {}
    blocks: dict[str, Any]
    sizes: dict[str, _Size] = {}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or figure in one size.

    Attributes:
        id: Paper and table, such as ``003:table-2``.
        size: ``small`` or ``full``.
        title: What it shows.
        about: What it measures, and in which size.
        label: How close the setting is to the published one.
        sweep: What is run.
        keys: Row key to what it stands for, see `advpure.sweeps.table`.
        columns: Column to where it is found.
        checks: What the table must show, see `advpure.sweeps.checks`.
        figure: How it is drawn, see `advpure.sweeps.figures`; None where nothing is.
        table: The published table, None where there is none.
        table_id: Its name.
    """

    id: str
    size: str
    title: str
    about: str
    label: Label
    sweep: Sweep
    keys: Keys
    columns: Mapping[str, Column]
    checks: tuple[Mapping[str, Any], ...] = ()
    figure: Mapping[str, Any] | None = None
    table: PublishedTable | None = field(default=None, repr=False)
    table_id: str | None = None


def experiment_ids() -> tuple[str, ...]:
    """Return the experiments that there are, sorted by paper; numbers in names count as numbers.

    Example:
        >>> "003:table-2" in experiment_ids()
        True
    """
    return tuple(sorted((id for id, _ in _listed()), key=_natural))


def load_experiment(
    id: str, size: str = "small", change: Mapping[str, Any] | None = None
) -> Experiment:
    """Read an experiment in one size.

    Args:
        id: Paper and table, such as ``003:table-2``, or a file of your own of the same form; one
            without sizes is run as it stands, whatever the size.
        size: ``small`` or ``full``.
        change: Options to set in every block, laid over the size's; ``BLOCK.OPTION`` sets one in
            that block alone.

    Raises:
        BadInput: for an unknown name or size, with the nearest known one, or a file of another
            form.

    Example:
        >>> load_experiment("003:table-2").keys
        {'purifier': 'defense', 't': 't'}
    """
    file = _read_file(Path(id)) if is_file(id) else None
    if file is None:
        check_choice(id, experiment_ids(), "experiment")
        file = _read(id)
    if is_file(id) and not file.sizes:
        chosen = _Size(label="re-derived", about="")
    else:
        check_choice(size, tuple(file.sizes), f"size of {id}")
        chosen = file.sizes[size]
    laid: dict[str, Any] = {name: getattr(file, name) for name in _LAID_OVER}
    laid = _laid_over(laid, chosen.model_dump(include=set(_LAID_OVER)))
    blocks = laid["blocks"]
    for option, value in (change or {}).items():
        block, dot, own = option.partition(".")
        for name in [block] if dot and block in blocks else blocks:
            changed = own if name == block and dot else option
            given = blocks[name] or {}
            base = dict(flatten(given.get("base") or {}))
            base = {k: v for k, v in base.items() if not k.startswith(f"{changed}.")}
            blocks = {**blocks, name: {**given, "base": {**base, changed: value}}}
    laid["blocks"] = blocks
    name = f"{Path(id).stem if is_file(id) else id.replace(':', '-')}-{size}"
    origin: dict[str, Any] = {"experiment": str(Path(id).resolve()) if is_file(id) else id}
    origin |= {"size": size, **({"changes": dict(change)} if change else {})}
    sweep = parse_sweep(laid, name=name, where=f"experiment {id} ({size})")
    columns = {
        key: spec
        for key, spec in _laid_over(file.columns, chosen.columns).items()
        if spec is not None
    }
    checks = file.checks if chosen.checks is None else chosen.checks
    keys = file.keys if chosen.keys is None else chosen.keys
    return Experiment(
        id=id,
        size=size,
        title=file.title,
        about=f"{file.about} {_of_size(chosen, size, change or {})}".strip(),
        label="scaled down" if change and chosen.label == "reproduction" else chosen.label,
        sweep=Sweep(name=sweep.name, blocks=sweep.blocks, origin=origin),
        keys=keys,
        columns={key: _column(id, key, spec) for key, spec in columns.items()},
        checks=tuple(checks),
        figure=file.figure,
        table=_table(id, file.published),
        table_id=file.published,
    )


def _of_size(chosen: _Size, size: str, change: Mapping[str, Any]) -> str:
    """Return what a size says of itself; nothing of counts and data that a change may replace."""
    if not change:
        return chosen.about
    listed = ", ".join(f"{option}={value}" for option, value in change.items())
    return f"Size {size}, changed by {listed}."


def summaries() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return name, title and sizes of every experiment."""
    read = {id: _read(id) for id in experiment_ids()}
    return [(id, file.title, tuple(file.sizes)) for id, file in read.items()]


def _listed() -> Iterator[tuple[str, Traversable]]:
    for folder in files("advpure.experiments").iterdir():
        if folder.is_dir() and digits(folder.name) is not None:
            for path in folder.iterdir():
                if path.name.endswith(".yaml"):
                    yield f"{folder.name}:{path.name.removesuffix('.yaml')}", path


@cache
def _read(id: str) -> _File:
    text = dict(_listed())[id].read_text(encoding="utf-8")
    return _valid(read_yaml(text, f"experiment {id}"), id)


def is_file(id: str) -> bool:
    """Return True if an experiment is named by a file.

    Example:
        >>> is_file("mine/law.yaml"), is_file("003:table-2")
        (True, False)
    """
    return id.endswith((".yaml", ".yml"))


def _read_file(path: Path) -> _File:
    data = read_yaml_file(path)
    if "title" not in data and ("verb" in data or "blocks" in data):
        raise BadInput(str(path), "is a sweep without title, keys and columns", f"run {_SWEEP}")
    return _valid(data, str(path))


def _valid(data: Mapping[str, Any], name: str) -> _File:
    try:
        return _File.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].lower()
        raise BadInput(f"experiment {name}: {where}", message, "mend the file") from None


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; lists and values above replace those below."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _laid_over(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _column(id: str, name: str, spec: Mapping[str, Any]) -> Column:
    for key in spec:
        check_choice(
            key, tuple(Column.__dataclass_fields__), f"experiment {id}: column {name}: key"
        )
    return Column(**spec)


def _table(id: str, name: str | None) -> PublishedTable | None:
    if name is None:
        return None
    seed = id.partition(":")[0]
    if is_file(id):
        seed, colon, name = name.partition(":")
        if not colon:
            rule = f"{seed!r} names no paper"
            raise BadInput(f"experiment {id}: published", rule, "write SEED:TABLE, such as 003:T2")
    tables = published(seed).tables
    check_choice(name, tuple(tables), f"experiment {id}: published table")
    return tables[name]


def _natural(id: str) -> tuple[Any, ...]:
    seed, _, name = id.partition(":")
    kind, _, number = name.partition("-")
    rank = "".join(c for c in number if digits(c) is not None)
    letters = "".join(c for c in number if digits(c) is None)
    supplement = number[:1].isalpha()
    return seed, kind != "table", supplement, int(rank or 0), letters, name
