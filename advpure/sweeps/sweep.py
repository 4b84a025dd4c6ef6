"""A sweep: blocks of one verb each, with fixed settings and the axes along which others vary.

    name: law                          # names the sweep's folder
    base: {dataset: digits, n: 20}     # settings of every block
    grid:                              # every combination of these
      defense: [ddpm, reverse, ddim]
      t: [10, 50, 150]
    blocks:
      cr: {}                           # a block is named after its verb, or names it: verb: cr
      attack:
        base: {randomness: fixed, attack_options: {steps: 10}}
        zip:                           # these lists advance together
          attack_options.loss: [ce, margin]
          seed: [0, 1]

`verb:` instead of `blocks:` makes a sweep of one block. Options that are mappings (`options`,
`attack_options`) are set whole or by their dotted names. What a block sets itself replaces what the
file sets for all blocks, be it a value or an axis.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advpure.base.errors import BadInput
from advpure.base.text import alike
from advpure.base.units import as_number
from advpure.base.validation import check_choice, shown, words
from advpure.base.validation import name as check_name
from advpure.runs.header import flatten
from advpure.sweeps.axes import Axis, written
from advpure.sweeps.strict_yaml import read_yaml_file

MOST_POINTS = 10_000
"""More in one file are a mistake, and take long to plan."""
SHARED = ("base", "grid", "zip")
_FILE = ("name", "about", "verb", "blocks", *SHARED)
_BLOCK = ("verb", *SHARED)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One verb, its settings and its axes.

    Attributes:
        name: The block's name in its sweep.
        verb: The verb's name.
        base: Fixed options, by dotted name.
        axes: The axes; their grid is swept.
    """

    name: str
    verb: str
    base: Mapping[str, Any] = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Blocks with a name.

    Attributes:
        name: Names the folder; see `advpure.base.validation.name`.
        blocks: The blocks, in the order of the file.
        origin: What a folder of the sweep says about where it comes from, JSON values.
    """

    name: str
    blocks: tuple[Block, ...]
    origin: Mapping[str, Any] = field(default_factory=dict)


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep file.

    Raises:
        BadInput: naming the file and the first thing that is wrong with its form. The options
            themselves are checked by `advpure.sweeps.points.plan`.
    """
    source = Path(path)
    file = read_yaml_file(source)
    return parse_sweep(file, name=file.get("name", source.stem), where=source.name)


def parse_sweep(file: Mapping[str, Any], *, name: str, where: str) -> Sweep:
    """Read a sweep from plain data.

    Args:
        file: What the file says.
        name: The sweep's name.
        where: What to call the data in messages.

    Raises:
        BadInput: for data of another form.

    Example:
        >>> file = {"verb": "cr", "base": {"n": 4}, "grid": {"t": [10, 20]}}
        >>> sweep = parse_sweep(file, name="law", where="law.yaml")
        >>> sweep.blocks[0].verb, len(sweep.blocks[0].axes[0].values)
        ('cr', 2)
    """
    for key in file:
        check_choice(key, _FILE, f"{where}: key")
    check_name(name, f"{where}: name")
    if "about" in file:
        words(file["about"], f"{where}: about")
    if ("verb" in file) == ("blocks" in file):
        raise BadInput(
            where,
            "needs either a verb or blocks",
            "write verb: cr, or blocks: {cr: {}, attack: {}}",
        )
    if "verb" in file:
        words(file["verb"], f"{where}: verb")
    blocks = file["blocks"] if "blocks" in file else {file["verb"]: {}}
    if not isinstance(blocks, Mapping) or not blocks:
        raise BadInput(f"{where}: blocks", "are no mapping of names to settings", "write cr: {}")
    shared = {key: file.get(key) for key in SHARED}
    sweep = Sweep(
        name=name,
        blocks=tuple(
            _block(
                check_name(key, f"{where}: block"),
                {} if own is None else own,
                shared,
                f"{where}: block {key}",
            )
            for key, own in blocks.items()
        ),
    )
    count = sum(math.prod(len(axis.values) for axis in block.axes) for block in sweep.blocks)
    if count > MOST_POINTS:
        fix = f"sweep {MOST_POINTS:,} or fewer in one file"
        raise BadInput(f"{where} with {count:,} points", "is too large to plan", fix)
    return sweep


def _block(name: str, own: Any, shared: Mapping[str, Any], where: str) -> Block:
    if not isinstance(own, Mapping):
        raise BadInput(
            f"{where} = {shown(own)}", "is no mapping", "write base:, grid: or zip: below it"
        )
    for key in own:
        check_choice(key, _BLOCK, f"{where}: key")
    base, axes = _base(own.get("base"), where), _axes(own, where)
    mine = {*base, *(option for axis in axes for option in axis.options)}
    outer = [axis.without(sorted(mine)) for axis in _axes(shared, where)]
    joined = (*(axis for axis in outer if axis is not None), *axes)
    _check_apart(joined, where)
    swept = _set_by(joined)
    common = {k: v for k, v in _base(shared["base"], where).items() if k not in swept}
    if twice := base.keys() & _set_by(axes):
        raise BadInput(
            f"{where}: option {min(twice)!r}", "stands in base and in an axis", "keep one"
        )
    verb = words(own.get("verb", name), f"{where}: verb")
    return Block(name=name, verb=verb, base=common | base, axes=joined)


def _base(given: Any, where: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise BadInput(
            f"{where}: base {shown(given)}", "is no mapping", "write OPTION: VALUE lines"
        )
    base: dict[str, Any] = {}
    for option, value in flatten(given or {}):
        if option in base:
            rule = "stands there by its dotted name and in a mapping"
            raise BadInput(f"{where}: base {option}", rule, "keep one")
        base[option] = value
    return base


def _set_by(axes: Sequence[Axis]) -> set[str]:
    """Return what axes set, by dotted name: an option alone, and the members of a whole mapping."""
    points = [point for axis in axes for point in axis.values]
    return {name for point in points for name in (*point, *dict(flatten(point)))}


def _axes(given: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    grid, zips = given.get("grid"), given.get("zip")
    grid, zips = {} if grid is None else grid, [] if zips is None else zips
    if not isinstance(grid, Mapping):
        raise BadInput(
            f"{where}: grid {shown(grid)}", "is no mapping", "write OPTION: [VALUE, VALUE]"
        )
    groups = [zips] if isinstance(zips, Mapping) else zips
    if not isinstance(groups, Sequence) or isinstance(groups, str):
        raise BadInput(
            f"{where}: zip {shown(zips)}", "is no mapping", "write OPTION: [VALUE, VALUE]"
        )
    axes = [_axis({option: values}, f"{where}: grid") for option, values in grid.items()]
    axes += [_axis(group, f"{where}: zip") for group in groups if group]
    _check_apart(axes, where)
    return tuple(axes)


def _check_apart(axes: Sequence[Axis], where: str) -> None:
    """Refuse axes that both set one option, be it as a whole and a part of it by a dotted name."""
    seen: list[str] = []
    for option in (option for axis in axes for option in axis.options):
        for other in seen:
            if f"{option}.".startswith(f"{other}.") or f"{other}.".startswith(f"{option}."):
                longer = max(option, other, key=len)
                raise BadInput(f"{where}: option {longer!r}", "varies along two axes", "keep one")
        seen.append(option)


def _axis(group: Any, where: str) -> Axis:
    if not isinstance(group, Mapping):
        raise BadInput(f"{where} {shown(group)}", "is no mapping", "write OPTION: [VALUE, VALUE]")
    for option, values in group.items():
        if not isinstance(values, list) or not values:
            plain = isinstance(values, int | float | str)
            fix = f"write {option}: [{shown(values) if plain else 'VALUE, VALUE'}]"
            raise BadInput(f"{where}: {option} = {shown(values)}", "is no list of values", fix)
        if len(values) > MOST_POINTS:
            fix = f"sweep {MOST_POINTS:,} or fewer"
            raise BadInput(f"{where}: {option} of {len(values):,} values", "is too long", fix)
    lengths = {option: len(values) for option, values in group.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{option} {count}" for option, count in lengths.items())
        raise BadInput(f"{where} with lengths {listed}", "does not advance together", "pad or cut")
    points = tuple(dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True))
    _check_distinct(points, where)
    return Axis(points)


def _check_distinct(points: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse an axis two of whose places set the same, in whatever way the numbers are written."""
    seen: set[str] = set()
    sizes: list[tuple[float, int]] = []
    for k, point in enumerate(points):
        if written(point) in seen:
            raise _repeated(point, where)
        seen.add(written(point))
        size = as_number(next(iter(point.values()))) if len(point) == 1 else None
        if size is not None and not size.is_integer():
            sizes.append((size, k))
    for (one, _), (other, k) in itertools.pairwise(sorted(sizes)):
        if alike(one, other):
            raise _repeated(points[k], where)


def _repeated(point: Mapping[str, Any], where: str) -> BadInput:
    one = ", ".join(f"{option} {shown(value)}" for option, value in point.items())
    return BadInput(f"{where}: {one}", "repeats a value", "give each value once")
