"""Download a file so that an interruption loses nothing.

What has arrived lies beside the target as `NAME.part`; the next call asks the server for the rest
(an HTTP range). The target appears when its checksum is right, and never otherwise.
"""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from advpure.base.errors import BadInput
from advpure.base.storage import writing

_CHUNK = 2**20


def download(
    url: str,
    target: Path,
    md5: str,
    *,
    fix: str,
    timeout: float = 30.0,
    tell: Callable[[int], None] = lambda done: None,
) -> Path:
    """Fetch a file, or go on where an earlier call stopped.

    Args:
        url: Where it is.
        target: Where it goes.
        md5: Its checksum.
        fix: What a user can do instead, for messages.
        timeout: Seconds without an answer after which the server counts as out of reach.
        tell: Called with the bytes that have arrived.

    Returns:
        The target.

    Raises:
        BadInput: when the server cannot be reached, the connection breaks, or the file is another.
        StorageFull: when the disk is full.
    """
    if target.is_file() and _md5(target) == md5:
        return target
    part = target.with_name(f"{target.name}.part")
    name = url.rpartition("/")[2]
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    try:
        _fetch(url, part, timeout, tell)
    except (urllib.error.URLError, TimeoutError, ConnectionError, EOFError) as error:
        reason = str(getattr(error, "reason", error)).splitlines() or [type(error).__name__]
        raise BadInput(f"the download of {name}", f"failed ({reason[0]})", fix) from None
    if _md5(part) != md5:
        part.unlink()
        raise BadInput(f"the download of {name}", "has a wrong checksum", fix)
    part.replace(target)
    return target


def _fetch(url: str, part: Path, timeout: float, tell: Callable[[int], None]) -> None:
    """Append what is missing."""
    have = part.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing: the range begins at the end
            return
        raise
    with answer, writing(part), part.open("ab" if answer.status == 206 else "wb") as stream:
        expected = answer.headers.get("Content-Length")
        start = stream.tell()
        while chunk := answer.read(_CHUNK):
            stream.write(chunk)
            tell(stream.tell())
        if expected is not None and stream.tell() - start < int(expected):
            raise EOFError("the connection broke")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
