"""Put CIFAR-10 where `load_images` finds it, from whatever form it travels in, and prove it.

Every file is checked against its SHA1 sum before it appears under its name, whole or not at all; a
call that was interrupted goes on with the files that are missing.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from advpure.base.extras import optional
from advpure.data import cifar10
from advpure.data.cifar10_sources import Source, find_source
from advpure.data.download import download
from advpure.data.files import Files, open_files
from advpure.errors import BadInput
from advpure.storage import atomic_path

FILES = len(cifar10.SHA1)
"""How many files there are."""


class Obtained(NamedTuple):
    """What was done.

    Attributes:
        folder: Where the six files lie.
        source: What they were made from, in words; empty when all were there.
        written: Names of the files that were written now.
    """

    folder: Path
    source: str
    written: list[str]


def obtain_cifar10(
    source: str | Path | None = None,
    to: str | Path | None = None,
    *,
    tell: Callable[[int], None] = lambda done: None,
) -> Obtained:
    """Obtain CIFAR-10 and store it as the six checked files of the binary version.

    Args:
        source: A folder or an archive (tar, tar.gz, tgz, zip) that holds the binary version, the
            python version (read without running its pickles), PNG files, strips of PNG, or an npz;
            an npz file itself. None downloads it through torchvision.
        to: What ADVPURE_DATA is, or will be; the files go to its subfolder `cifar10`.
        tell: Called with the number of files that are ready.

    Returns:
        Obtained: Where the files are, and which are new.

    Raises:
        BadInput: for a source that is damaged, incomplete, unknown or not CIFAR-10, and when the
            download cannot be reached; the message is one line.
        MissingExtra: when torchvision is needed and missing.
        StorageFull: when the disk is full; finished files stay.
    """
    folder = cifar10.folder() if to is None else Path(to) / "cifar10"
    wanted = [name for name in cifar10.SHA1 if not cifar10.is_right(folder, name)]
    tell(FILES - len(wanted))
    if not wanted:
        return Obtained(folder, "", [])
    with _download(folder) if source is None else _open(Path(source)) as files:
        kind, read = find_source(files)
        for done, name in enumerate(wanted, FILES - len(wanted) + 1):
            _store(folder / name, read, name, files)
            tell(done)
    return Obtained(folder, kind, wanted)


@contextmanager
def _open(path: Path) -> Iterator[Files]:
    """Open a folder, an archive, or a lone npz file."""
    if path.suffix == ".npz" and path.is_file():
        yield Files(path, {path.name: path.read_bytes})
        return
    with open_files(path) as files:
        yield files


def _store(target: Path, read: Source, name: str, files: Files) -> None:
    """Check one file and let it appear."""
    content = read(name).tobytes()
    if hashlib.sha1(content, usedforsecurity=False).hexdigest() != cifar10.SHA1[name]:
        raise BadInput(
            f"{name} from {files.where}", "has a wrong SHA1 sum", "obtain the source again"
        )
    with atomic_path(target) as scratch:
        scratch.write_bytes(content)
    cifar10.seal(target)


@contextmanager
def _download(folder: Path) -> Iterator[Files]:
    """Download the archive of the python version; it stays until all files are written."""
    with optional("torchvision", "metrics"):
        from torchvision.datasets import CIFAR10
    fix = "run it again, or fetch cifar-10-binary.tar.gz elsewhere and give --from FILE"
    archive = download(CIFAR10.url, folder / CIFAR10.filename, CIFAR10.tgz_md5, fix=fix)
    with open_files(archive) as files:
        yield files
    archive.unlink()
