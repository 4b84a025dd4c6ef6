"""The classes of ImageNet: WordNet ids, their order, and the numbers that the development kit uses.

The label of a class is its place in the sorted list of the 1,000 WordNet ids. Nothing else says
what a label is: folders named 1 to 1000 are numbered in one of two orders, by the kit or by the
sorted ids, and need `map_clsloc.txt`, which says which number is which id.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from advpure.base.budget import read_text
from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.text import digits

MAP = "map_clsloc.txt"
CLASSES = 1000
_WNID = re.compile(r"n[0-9]{8}")
_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"  # ids, one a line


def ranks_of(names: Sequence[str], listed: Path) -> dict[str, int]:
    """Return the label of every folder of images.

    Args:
        names: Names of the folders: WordNet ids, all or some; or numbers of the development kit.
        listed: Where `map_clsloc.txt` lies, if it is there: what numbers mean.

    Raises:
        BadInput: for names that say no class.
        MissingExtra: for some of the ids, without timm, which lists all.
    """
    if listed.is_file() and all(digits(name) is not None for name in names):
        return _by_number(names, listed)
    if all(_WNID.fullmatch(name) for name in names) and is_imagenet(names):
        return {name: rank for rank, name in enumerate(sorted(names))}
    wrong = next((name for name in names if not _WNID.fullmatch(name)), None)
    known = _known() if wrong is None else {}
    for name in names:
        if name not in known:
            raise BadInput(
                f"folder {wrong or name!r} among {len(names)} classes",
                "is none of ImageNet's 1,000 WordNet ids",
                f"name folders like n01440764, or put {MAP} of the development kit beside them",
            )
    return {name: known[name] for name in names}


def is_imagenet(names: Sequence[str]) -> bool:
    """Return True if names are the 1,000 WordNet ids, in any order."""
    if len(names) != CLASSES:
        return False
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest() == _SHA256


def read_map(path: Path) -> dict[int, str]:
    """Read `map_clsloc.txt`: on each line a WordNet id, its number, and a name.

    Returns:
        Number to WordNet id.

    Raises:
        BadInput: for a file of another form, or one that names an id or a number twice.
    """
    wnids: dict[int, str] = {}
    seen: set[str] = set()
    for line, text in enumerate(read_text(path, "list").splitlines(), 1):
        fields = text.split()
        if not fields:
            continue
        number = digits(fields[1]) if len(fields) > 1 else None
        if number is None or number in wnids or fields[0] in seen:
            rule = "has another form than a WordNet id and a number of its own"
            raise BadInput(f"line {line} of {path}", rule, "copy it again")
        wnids[number] = fields[0]
        seen.add(fields[0])
    return wnids


def _by_number(names: Sequence[str], listed: Path) -> dict[str, int]:
    wnids = read_map(listed)
    if not is_imagenet(list(wnids.values())):
        raise BadInput(f"list {listed}", "does not hold ImageNet's 1,000 classes", "copy it again")
    ranks = {wnid: rank for rank, wnid in enumerate(sorted(wnids.values()))}
    found = {}
    for name in names:
        wnid = wnids.get(digits(name) or -1)
        if wnid is None:
            raise BadInput(f"folder {name!r}", f"has no number of {listed}", "name it by WordNet")
        found[name] = ranks[wnid]
    return found


def _known() -> dict[str, int]:
    with optional("timm", "hub"):
        from timm.data.imagenet_info import ImageNetInfo
    listed: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    return {name: rank for rank, name in enumerate(listed)}
