"""How much of a file is read before it has shown that it is what it claims: one place for limits.

Nothing larger than these is allocated, unpacked or walked. Each number is some times what the
largest honest file of its kind needs; the file that is refused is named, with the limit.
"""

import zipfile
from pathlib import Path

from advpure.base.errors import BadInput

MEMBER = 256 * 2**20
"""Bytes of one file in an archive, or of a file read whole; CIFAR-10 as one npz has 176 MiB."""
ARRAY = 2 * 2**30
"""Bytes of one array of a large batch; a tenth of ImageNet at 64x64 has 1.5 GiB."""
UNPACKED = 4 * 2**30
"""Bytes of a whole archive, unpacked."""
RATIO = 100
"""Bytes that one packed byte may become beyond the first MiB; images become less than 10."""
FREE = 2**20
"""Bytes that may be packed at any ratio."""
FILES = 200_000
"""Files in a folder or an archive; CIFAR-10 as single pictures has 60,000."""
HEADER = 2**20
"""Bytes of names and notes beside one file of an archive."""
PIXELS = 2**26
"""Pixels of a picture; the largest of ImageNet has 61 million."""
OPERATIONS = 2_000_000
"""Steps of a pickle; a batch of CIFAR-10 has 60,000."""
MEMO = 1_000_000
"""Places of a pickle's memo."""
PATH_NODES = 2**26
"""Nodes of all simulated paths together, float64, which take 512 MiB."""
REPEATS = 10**7
"""Numbers that are kept at once of one image, one level or one simulation."""
TEXT = 64 * 2**20
"""Bytes of a text: a list of images, a certification log."""

MAX_TEXT = 2**20
"""Bytes of a text that is parsed: a recipe, an index, a header."""

MAX_NESTING = 64
"""Tables or lists inside one another."""

MAX_BATCH = 2**20
"""Images of one step of a training."""

MAX_SIDE = 2**12
"""Pixels that an image may be shifted by, or resized to."""

MAX_DRAWS = 2**12
"""Noises of one image in one step of a training."""

MAX_NODES = 2**16
"""Levels of a grid of noise levels."""

MAX_NAMES = 100_000
"""Modules and tensors in a pickle: each name counts, also for one that has several."""

MAX_PARAMETERS = 2**31
"""Parameters of a network that is built here."""

MAX_BLOCKS = 64
"""Blocks a level of a network."""

MAX_LEVELS = 8
"""Levels of a network."""

MAX_WIDTH = 2**16
"""Channels, classes and features of one layer."""


def check_size(size: int, most: int, where: str) -> None:
    """Refuse more bytes than a file of its kind has.

    Raises:
        BadInput: naming the limit.

    Example:
        >>> check_size(10, 100, "list.txt")
    """
    if size > most:
        raise BadInput(
            where, f"has {size:,} bytes, more than the {most:,} that are read", "obtain it again"
        )


def check_repeats(count: int, what: str, most: int = REPEATS) -> None:
    """Refuse more repetitions than their numbers can be kept of.

    Raises:
        BadInput: naming the limit.

    Example:
        >>> check_repeats(10**9, "perturbations")
        Traceback (most recent call last):
        ...
        advpure.BadInput: 1,000,000,000 perturbations are more than 10,000,000; ask for fewer
    """
    if count > most:
        raise BadInput(f"{count:,} {what}", f"are more than {most:,}", "ask for fewer")


def check_packed(packed: int, size: int, where: str) -> None:
    """Refuse what was packed so tightly that it is no image.

    Args:
        packed: Bytes in the archive.
        size: Bytes that they become.
        where: The file, for the message.

    Raises:
        BadInput: naming the limit.
    """
    if size > FREE + RATIO * packed:
        rule = f"unpacks {packed:,} bytes to {size:,}, more than {RATIO} to 1"
        raise BadInput(where, rule, "do not trust it")


def check_zip(archive: zipfile.ZipFile, most: int, where: str) -> None:
    """Refuse a zip archive with more, larger or tighter packed files than an honest one has.

    Args:
        archive: The archive, of which only the directory is read.
        most: Bytes of one file.
        where: Its file, for messages.

    Raises:
        BadInput: naming the limit.
    """
    members = archive.infolist()
    if len(members) > FILES:
        raise BadInput(
            where, f"holds {len(members):,} files, more than {FILES:,}", "obtain it again"
        )
    for member in members:
        name = f"{member.filename} in {where}"
        check_size(member.file_size, most, name)
        check_packed(member.compress_size, member.file_size, name)


def read_text(path: Path, what: str, most: int = TEXT) -> str:
    """Read a text file whole.

    Args:
        path: The file.
        what: What it is, for messages.
        most: Bytes of it, at most.

    Raises:
        BadInput: for one that is missing, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        rule = f"cannot be read ({(error.strerror or 'no file').lower()})"
        raise BadInput(f"{what} {path}", rule, "check the path") from None
    if len(content) > most:
        check_size(path.stat().st_size, most, f"{what} {path}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{what} {path}", "is no text in UTF-8", "convert it") from None
