"""Files by name in a folder or an archive; nothing is ever unpacked to the disk.

What an archive may hold is in `advpure.base.budget`, and is checked from its directory or headers:
before a file is unpacked, and while a compressed archive is walked.
"""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from advpure.base import budget
from advpure.base.errors import BadInput

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    MemoryError,
)
_PACKED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_NOTES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Files:
    """Read-only files, found by the last part of their path.

    Args:
        where: What holds them, for messages.
        readers: By path inside it, a function that returns the bytes.
    """

    def __init__(self, where: Path, readers: dict[str, Callable[[], bytes]]) -> None:
        """Index the files by their last part."""
        self.where, self.paths = where, sorted(readers)
        self._readers = readers
        self._by_name = {path.rpartition("/")[2]: path for path in reversed(self.paths)}

    def __contains__(self, name: str) -> bool:
        """Return True if there is a file of that name in any folder."""
        return name in self._by_name

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Args:
            name: Its full path, or its last part where that is enough.

        Raises:
            BadInput: when it is missing, larger or tighter packed than the budget, or cannot be
                read.
        """
        path = name if name in self._readers else self._by_name.get(name)
        if path is None:
            raise BadInput(f"{self.where}", f"has no {name}", "obtain it again")
        try:
            return self._readers[path]()
        except BadInput:
            raise
        except _DAMAGE:
            raise BadInput(
                f"{path} in {self.where}", "is damaged or cut short", "obtain it again"
            ) from None


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder (searched to any depth), a tar archive (compressed or not), or a zip archive.

    Raises:
        BadInput: when it is missing, no such thing, or beyond the budget.
    """
    if path.is_dir():
        yield Files(path, _in_folder(path))
    elif not path.is_file():
        raise BadInput(f"{path}", "is missing", "give a folder or an archive")
    elif zipfile.is_zipfile(path):
        with ExitStack() as stack:
            try:
                archive = stack.enter_context(zipfile.ZipFile(path))
            except _DAMAGE:
                raise _broken(path) from None
            yield Files(path, _in_zip(archive, path))
    else:
        with ExitStack() as stack:
            try:
                tar = stack.enter_context(_open_tar(path, stack))
                members = _in_tar(tar, path)
            except BadInput:
                raise
            except _DAMAGE:
                raise _broken(path) from None
            yield Files(path, members)


def read_file(path: Path, most: int = budget.MEMBER) -> bytes:
    """Return the bytes of a file that is read whole.

    Raises:
        BadInput: when it is missing, or larger than the budget.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        rule = f"cannot be read ({(error.strerror or 'no file').lower()})"
        raise BadInput(f"{path}", rule, "check the path") from None
    if len(content) > most:
        budget.check_size(path.stat().st_size, most, str(path))
    return content


def _broken(path: Path) -> BadInput:
    return BadInput(f"{path}", "is no folder and no whole archive", "obtain it again")


def _in_folder(path: Path) -> dict[str, Callable[[], bytes]]:
    readers: dict[str, Callable[[], bytes]] = {}
    for folder, _, names in os.walk(path):  # links to folders are not followed
        for name in names:
            file = Path(folder) / name
            if file.is_file():
                readers[file.relative_to(path).as_posix()] = partial(read_file, file)
        if len(readers) > budget.FILES:
            raise _too_many(path)
    return readers


def _in_zip(archive: zipfile.ZipFile, path: Path) -> dict[str, Callable[[], bytes]]:
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) > budget.FILES:
        raise _too_many(path)

    def read(info: zipfile.ZipInfo) -> bytes:
        where = f"{info.filename} in {path}"
        budget.check_size(info.file_size, budget.MEMBER, where)
        budget.check_packed(info.compress_size, info.file_size, where)
        with archive.open(info) as stream:
            return stream.read(info.file_size)  # and not more, whatever is packed

    return {info.filename: partial(read, info) for info in members}


class _Limited(tarfile.TarInfo):
    """A header of a tar archive whose notes, read whole by the library, have honest sizes."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> "_Limited":
        """Read a header, and refuse notes as large as files."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _NOTES and not 0 <= header.size <= budget.HEADER:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class _Metered(io.RawIOBase):
    """A compressed stream that ends in an error where it has become more than honest ones do."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        content = self._stream.read(len(view))
        view[: len(content)] = content
        self._check(self._stream.tell())
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._check(offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, position: int) -> None:
        if position > self._most:
            raise OSError(f"more than {self._most} bytes")


def _open_tar(path: Path, stack: ExitStack) -> tarfile.TarFile:
    """Open a tar archive; the stack closes its stream."""
    with path.open("rb") as stream:
        start = stream.read(6)
    opens = next((opens for magic, opens in _PACKED if start.startswith(magic)), None)
    if opens is None:
        return tarfile.open(path, "r:", tarinfo=_Limited)
    most = min(budget.UNPACKED, budget.FREE + budget.RATIO * path.stat().st_size)
    metered = _Metered(stack.enter_context(cast(IO[bytes], opens(path, "rb"))), most)
    return tarfile.open(fileobj=io.BufferedReader(metered, 2**16), mode="r:", tarinfo=_Limited)


def _in_tar(tar: tarfile.TarFile, path: Path) -> dict[str, Callable[[], bytes]]:
    readers: dict[str, Callable[[], bytes]] = {}
    for member in tar:
        if member.isfile():
            readers[member.name] = partial(_extract, tar, member, path)
        if len(readers) > budget.FILES:
            raise _too_many(path)
    return readers


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    """Return the bytes of a regular member."""
    budget.check_size(member.size, budget.MEMBER, f"{member.name} in {path}")
    stream = tar.extractfile(member)
    if stream is None:
        raise OSError(f"{member.name} is no file")
    return stream.read()


def _too_many(path: Path) -> BadInput:
    rule = f"holds more than {budget.FILES:,} files"
    return BadInput(f"{path}", rule, "give the folder or archive of the data set alone")
