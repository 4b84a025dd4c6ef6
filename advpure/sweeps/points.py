"""The points of a sweep: every one a run of its own verb, checked before anything runs.

A point's run folder is named as the verb itself names it: verb and hash of the resolved settings.
So a point that was computed before, by this sweep, by another one or by the verb alone, is found
again, and equal points of a sweep are one.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advpure.base.errors import BadInput
from advpure.base.flags import by_field
from advpure.options import read_options
from advpure.runs.header import run_id
from advpure.runs.records import RecordStore
from advpure.studies import STUDIES
from advpure.sweeps.axes import product
from advpure.sweeps.sweep import Block, Sweep


@dataclass(frozen=True)
class Draft:
    """A point whose options are read, and whose names and values are not yet looked up.

    Attributes:
        block: Name of its block.
        verb: Name of its verb.
        at: What the axes set, dotted option to value as the file has it.
        settings: The verb's settings.
        rank: (largest, sum) of the levels of its places, see `advpure.sweeps.axes`, and its place
            in its block; the blocks take turns.
    """

    block: str
    verb: str
    at: Mapping[str, Any]
    settings: Any
    rank: tuple[int, int, int]


@dataclass(frozen=True)
class Point:
    """A point that can be computed.

    Attributes:
        block: Name of its block.
        verb: Name of its verb.
        at: What the axes set, dotted option to value as the file has it.
        settings: The verb's settings.
        run: Name of its run folder, verb and hash of the resolved settings.
        place: Its index in its block, as the file lists the points.
    """

    block: str
    verb: str
    at: Mapping[str, Any]
    settings: Any
    run: str
    place: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, from which `from_json` makes it again."""
        return {
            "block": self.block,
            "verb": self.verb,
            "run": self.run,
            "place": self.place,
            "at": dict(self.at),
            "settings": dataclasses.asdict(self.settings),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Point":
        """Read what `to_json` wrote."""
        settings = read_options(STUDIES.get(entry["verb"]), entry["settings"], entry["verb"])
        return cls(
            entry["block"], entry["verb"], entry["at"], settings, entry["run"], entry["place"]
        )


def drafts(sweep: Sweep) -> list[Draft]:
    """Read the options of every point, in the order in which they are computed.

    Raises:
        BadInput: for an unknown verb or option, with the nearest name, or a value of the wrong
            kind; the message names the block.
    """
    every = [draft for block in sweep.blocks for draft in _drafts(block)]
    return sorted(every, key=lambda draft: draft.rank)


def plan(sweep: Sweep, watch: Callable[[int, int], None] = lambda done, total: None) -> list[Point]:
    """Check every point as its verb does before it computes: data, models, names and values.

    Args:
        sweep: The sweep.
        watch: Called with the number of checked points and of all.

    Returns:
        The points, most informative first; of points that come to the same run the first.

    Raises:
        BadInput: naming the block and the first point that cannot be computed.
        MissingExtra: when a package that a point needs is not installed.
    """
    listed = drafts(sweep)
    points: dict[tuple[str, str], Point] = {}
    for done, draft in enumerate(listed):
        watch(done, len(listed))
        run = _name(draft)
        point = Point(draft.block, draft.verb, draft.at, draft.settings, run, draft.rank[-1])
        points.setdefault((draft.block, run), point)
    watch(len(listed), len(listed))
    return list(points.values())


def find_run(root: Path, run: str) -> bool:
    """Return True if a run folder of that name holds records."""
    return (root / run / "records.sqlite").is_file()


def is_complete(root: Path, run: str) -> bool:
    """Return True if a run folder of that name holds all that its settings ask for.

    It may have been computed by another sweep, such as this one before it was extended.
    """
    if not find_run(root, run):
        return False
    with RecordStore.read(root / run) as store:
        return store.finished


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested mappings.

    Example:
        >>> nested({"n": 4, "attack_options.steps": 3, "attack_options.loss": "ce"})
        {'n': 4, 'attack_options': {'steps': 3, 'loss': 'ce'}}
    """
    tree: dict[str, Any] = {}
    for name, value in options.items():
        outer, dot, inner = name.partition(".")
        if not dot:
            tree[outer] = {**value, **tree.get(outer, {})} if isinstance(value, Mapping) else value
            continue
        holder = tree.setdefault(outer, {})
        if not isinstance(holder, dict):
            raise BadInput(f"option {name!r}", f"does not fit {outer} = {holder!r}", "keep one")
        holder[inner] = value
    return tree


def _drafts(block: Block) -> list[Draft]:
    kind = STUDIES.get(block.verb)
    made = []
    for index, (level, at) in enumerate(product(block.axes)):
        with_block = (
            f"{block.verb} (block {block.name})" if block.name != block.verb else block.verb
        )
        given = by_field(kind, {**block.base, **at})
        settings = read_options(kind, nested(given), with_block)
        made.append(Draft(block.name, block.verb, at, settings, (*level, index)))
    return made


def _name(draft: Draft) -> str:
    try:
        resolved = draft.settings.load().settings
    except BadInput as error:
        where = ", ".join(f"{option}={value}" for option, value in draft.at.items())
        point = f"block {draft.block}" + (f" at {where}" if where else "")
        raise BadInput(f"{point}: {error.subject}", error.rule, error.fix) from None
    return f"{draft.verb}-{run_id(resolved)}"
