"""Files by name in a folder or an archive; nothing is ever unpacked to the disk."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from advpure.errors import BadInput

_LIMIT = 256 * 2**20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


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
        """Say whether there is a file of that name in any folder."""
        return name in self._by_name

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Args:
            name: Its full path, or its last part where that is enough.

        Raises:
            BadInput: when it is missing, larger than 256 MiB, or cannot be read.
        """
        path = name if name in self._readers else self._by_name.get(name)
        if path is None:
            raise BadInput(f"{self.where}", f"has no {name}", "obtain it again")
        try:
            return self._readers[path]()
        except _DAMAGE:
            raise BadInput(
                f"{path} in {self.where}", "is damaged or cut short", "obtain it again"
            ) from None


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder (searched to any depth), a tar archive (compressed or not), or a zip archive.

    Raises:
        BadInput: when it is missing or no such thing.
    """
    if path.is_dir():
        found = (file for file in path.rglob("*") if file.is_file())
        yield Files(
            path, {file.relative_to(path).as_posix(): _small(file.read_bytes, file.stat().st_size)
                   for file in found}
        )  # fmt: skip
    elif not path.is_file():
        raise BadInput(f"{path}", "is missing", "give a folder or an archive")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield Files(path, {
                info.filename: _small(partial(archive.read, info), info.file_size)
                for info in archive.infolist() if not info.is_dir()
            })  # fmt: skip
    else:
        try:
            tar = tarfile.open(path)  # noqa: SIM115 - closed below, whatever happens
            members = [member for member in tar.getmembers() if member.isfile()]
        except _DAMAGE:
            raise BadInput(
                f"{path}", "is no folder and no whole archive", "obtain it again"
            ) from None
        with tar:
            yield Files(path, {
                member.name: _small(partial(_extract, tar, member), member.size)
                for member in members
            })  # fmt: skip


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a regular member."""
    stream = tar.extractfile(member)
    if stream is None:
        raise OSError(f"{member.name} is no file")
    return stream.read()


def _small(read: Callable[[], bytes], size: int) -> Callable[[], bytes]:
    """Refuse to read what cannot be meant."""

    def checked() -> bytes:
        if size > _LIMIT:
            raise OSError(f"{size} bytes are too many")
        return read()

    return checked
