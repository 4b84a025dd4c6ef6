"""Put CIFAR-10 where `load_images` finds it, from whatever form it travels in, and prove it.

Every file is checked against its SHA1 sum before it appears under its name, whole or not at all; a
call that was interrupted goes on with the files that are missing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.storage import atomic_path
from advpure.data import cifar10
from advpure.data.cifar10_records import Source, is_shuffled, split_of, sum_of
from advpure.data.cifar10_sources import find_source
from advpure.data.download import download
from advpure.data.files import Files, open_files, read_file

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
            python version (read without running its pickles), numbered PNG files, strips of PNG,
            the zip of EDM's dataset tool (training images alone), an npz, or the Parquet files of
            the hub; an npz or Parquet file itself. None downloads it through torchvision.
        to: What ADVPURE_DATA is, or will be; the files go to its subfolder `cifar10`.
        tell: Called with the number of files that are ready.

    Returns:
        Obtained: Where the files are, and which are new; a source with one split alone leaves
        the files of the other `missing`.

    Raises:
        BadInput: for a source that is damaged, incomplete, unknown or not CIFAR-10, and when the
            download cannot be reached; the message is one line.
        MissingExtra: when torchvision is needed and missing.
        StorageFull: when the disk is full; finished files stay.
    """
    folder = cifar10.folder() if to is None else Path(to) / "cifar10"
    wanted = missing(folder)
    tell(FILES - len(wanted))
    if not wanted:
        return Obtained(folder, "", [])
    with _download(folder) if source is None else _open(Path(source)) as files:
        found = find_source(files)
        there = [name for name in wanted if split_of(name) in found.splits]
        if not there:
            split = split_of(wanted[0])
            raise BadInput(
                f"{files.where}", f"holds no {split} images, which are missing", "give another"
            )
        for done, name in enumerate(there, FILES - len(wanted) + 1):
            _store(folder / name, found, name, files)
            tell(done)
    return Obtained(folder, found.kind, there)


def missing(folder: Path) -> list[str]:
    """Return the names of the files that a folder lacks, or has damaged."""
    return [name for name in cifar10.SHA1 if not cifar10.is_right(folder, name)]


@contextmanager
def _open(path: Path) -> Iterator[Files]:
    """Open a folder, an archive, or a lone npz or Parquet file."""
    if path.suffix in (".npz", ".parquet") and path.is_file():
        yield Files(path, {path.name: partial(read_file, path)})
        return
    with open_files(path) as files:
        yield files


def _store(target: Path, source: Source, name: str, files: Files) -> None:
    """Check one file and let it appear."""
    records = source.read(name)
    if sum_of(records) != cifar10.SHA1[name]:
        if is_shuffled(source, split_of(name)):
            raise BadInput(
                f"{files.where}",
                f"holds the official {split_of(name)} images in another order, and does not say "
                "which",
                "give a source that keeps the order",
            )
        raise BadInput(
            f"{name} from {files.where}", "has a wrong SHA1 sum", "obtain the source again"
        )
    with atomic_path(target) as scratch:
        scratch.write_bytes(records.tobytes())
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
