"""Rows of numbers on disk: appended, read back in blocks, gone when they have served.

What a measurement needs twice but cannot hold in memory waits here. Every row ends with a CRC-32 of
its place and its bytes, so a file that a killed process left behind is cut where it is whole, and
the rows before the cut need not be computed again.
"""

import fcntl
import os
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from advpure.base.storage import writing

_CHECKED_AT_ONCE = 2**22  # bytes


class RowFile:
    """Rows of one length and dtype, in the order in which they were appended.

    Args:
        path: The file, opened where an earlier process left it; None for one that vanishes with
            this object. Where another process has the file in use, this one takes a vanishing file
            too: both then compute the same rows.
        width: Numbers in a row.
        dtype: What they are: float32 or float64.

    Attributes:
        count: Number of whole rows.

    Raises:
        BadInput: when the file cannot be written.
        StorageFull: when there is no room.

    Example:
        >>> with RowFile(None, 2, np.float32) as rows:
        ...     rows.append(np.array([[1.0, 2.0], [3.0, 4.0]]))
        ...     rows.count, rows.read(1, 2).tolist()
        (2, [[3.0, 4.0]])
    """

    def __init__(self, path: Path | None, width: int, dtype: npt.DTypeLike) -> None:
        """Open the file and count what is whole."""
        self._row = np.dtype([("row", dtype, (width,)), ("check", "<u4")])
        self._path = path
        with writing(path or Path(tempfile.gettempdir())):
            self._handle = _open(path)
        self.count = self._whole()
        with writing(self._where):
            self._handle.truncate(self.count * self._row.itemsize)

    def append(self, rows: npt.ArrayLike) -> None:
        """Add rows, [B, width], after the last.

        Raises:
            StorageFull: when there is no room; the rows before stay whole.
        """
        given = np.asarray(rows)
        block = np.zeros(len(given), self._row)
        block["row"] = given
        for index, row in enumerate(block["row"]):
            block["check"][index] = _check(row, self.count + index)
        with writing(self._where):
            self._handle.seek(self.count * self._row.itemsize)
            self._handle.write(block.tobytes())
            self._handle.flush()
        self.count += len(given)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows start .. stop - 1, [stop - start, width].

        Raises:
            IndexError: for rows that are not there.
        """
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"rows {start}:{stop} of {self.count}")
        self._handle.seek(start * self._row.itemsize)
        data = self._handle.read((stop - start) * self._row.itemsize)
        rows: npt.NDArray[Any] = np.frombuffer(data, self._row)["row"]
        return rows

    def close(self, *, remove: bool = False) -> None:
        """Let go of the file, and delete it where asked; a vanishing file is gone either way."""
        if remove and self._path is not None and not self._handle.closed and self._owned():
            self._path.unlink(missing_ok=True)
        with suppress(OSError):  # of a write that found no room, which was told when it failed
            self._handle.close()

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file and keep it, for the next process."""
        self.close()

    @property
    def _where(self) -> Path:
        return self._path or Path(tempfile.gettempdir())

    def _owned(self) -> bool:
        """Return True if the path still names the file that is open."""
        assert self._path is not None
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._handle.fileno()))

    def _whole(self) -> int:
        """Count the rows up to the first that was torn."""
        at_once, count = max(_CHECKED_AT_ONCE // self._row.itemsize, 1), 0
        self._handle.seek(0)
        while data := self._handle.read(at_once * self._row.itemsize):
            whole = len(data) // self._row.itemsize
            for row, check in np.frombuffer(data, self._row, whole):
                if check != _check(row, count):
                    return count
                count += 1
            if whole < at_once:
                break
        return count


def remove_leftover(path: Path) -> None:
    """Delete a file of rows that has served, unless another process has it in use."""
    if not path.is_file():
        return
    with _open(path) as handle:
        if os.path.samestat(path.stat(), os.fstat(handle.fileno())):
            path.unlink(missing_ok=True)


def _check(row: npt.NDArray[Any], index: int) -> int:
    """Checksum a row in its place; the offset tells a hole of zeros from a row of zeros."""
    return zlib.crc32(row.tobytes(), index + 1)


def _open(path: Path | None) -> IO[bytes]:
    if path is None:
        return tempfile.TemporaryFile()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return tempfile.TemporaryFile()
    return handle
