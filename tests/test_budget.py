"""What is larger or tighter packed than any honest file is refused before it is unpacked."""

import gzip
import io
import pickle
import resource
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from advpure.base import budget
from advpure.base.budget import check_packed, check_size, read_text
from advpure.base.errors import BadInput
from advpure.data import pickled
from advpure.data.arrays import read_arrays
from advpure.data.files import open_files
from advpure.data.pickled import read_plain
from advpure.data.pictures import read_png

MIB = 2**20


def grown(action: Callable[[], object]) -> float:
    """Return by how many MiB the largest memory of this process grows, whatever comes of it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInput) as refusal:
        action()
    assert "\n" not in str(refusal.value)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def large_png(width: int, height: int) -> bytes:
    """Return a PNG that claims a size, with data for none of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_a_picture_of_13000_by_13000_is_refused_by_its_header() -> None:
    assert grown(lambda: read_png(large_png(13_000, 13_000), "x.png")) < 64
    with pytest.raises(BadInput, match="has 13000x13000 pixels, more than 67,108,864"):
        read_png(large_png(13_000, 13_000), "x.png")


def test_zeros_deflated_1000_to_1_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("test_batch.bin", bytes(24 * MIB))
    with open_files(tmp_path / "x.zip") as files:
        assert grown(lambda: files.read("test_batch.bin")) < 12
        with pytest.raises(BadInput, match=r"unpacks 2\d,\d+ bytes to 25,165,824, more than 100"):
            files.read("test_batch.bin")


def test_a_zip_that_lies_of_its_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(24 * MIB))
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = content.index(magic) + place
        content[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)
    with open_files(path) as files:
        assert grown(lambda: files.read("a")) < 12


def test_npz_arrays_are_refused_by_their_size(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(24 * MIB, np.uint8))
    assert grown(lambda: read_arrays(tmp_path / "x.npz", "x.npz")) < 12
    with pytest.raises(BadInput, match="more than 100 to 1"):
        read_arrays(tmp_path / "x.npz", "x.npz")
    np.savez(tmp_path / "y.npz", x=np.zeros(1000, np.uint8))
    with pytest.raises(BadInput, match="has 1,128 bytes, more than the 500 that are read"):
        read_arrays(tmp_path / "y.npz", "y.npz", most=500)


def test_a_tar_of_zeros_or_with_notes_of_2_gib_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2 * 2**30
    path = tmp_path / "x.tar.gz"
    zeros = bytes(24 * MIB)
    path.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + zeros, 1))
    assert grown(lambda: open_files(path).__enter__()) < 12
    header.type, header.size = tarfile.REGTYPE, len(zeros)
    path.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + zeros, 9))
    assert grown(lambda: open_files(path).__enter__()) < 12


def test_a_pickle_s_memo_and_steps_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    memo = pickle.PROTO + b"\x04" + pickle.NONE + pickle.LONG_BINPUT + struct.pack("<I", 10**8)
    assert grown(lambda: read_plain(memo + pickle.STOP, "batch")) < 64
    with pytest.raises(BadInput, match="asks for 100,000,000 places of memory"):
        read_plain(memo + pickle.STOP, "batch")
    monkeypatch.setattr(pickled, "OPERATIONS", 1000)
    steps = pickle.PROTO + b"\x04" + (pickle.NONE + pickle.POP) * 1000
    with pytest.raises(BadInput, match="has more than 1,000 steps"):
        read_plain(steps + pickle.NONE + pickle.STOP, "batch")
    text = b"p100000000\n"
    with pytest.raises(BadInput, match="places of memory"):
        read_plain(pickle.NONE + text + pickle.STOP, "batch")


def test_a_folder_of_too_many_files_is_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "FILES", 10)
    for k in range(12):
        (tmp_path / f"{k}.png").touch()
    with pytest.raises(BadInput, match="holds more than 10 files"), open_files(tmp_path):
        pass
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for k in range(12):
            archive.writestr(str(k), b"")
    with pytest.raises(BadInput, match="holds more than 10"), open_files(tmp_path / "x.zip"):
        pass


def test_texts_are_utf_8_and_not_endless(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xff\xfe1\n")
    with pytest.raises(BadInput, match="is no text in UTF-8"):
        read_text(path, "list")
    path.write_text("0123456789")
    with pytest.raises(BadInput, match="has 10 bytes, more than the 5 that are read"):
        read_text(path, "list", most=5)
    with pytest.raises(BadInput, match=r"cannot be read \(no such file or directory\)"):
        read_text(tmp_path / "none", "list")


def test_honest_files_are_within_the_budget() -> None:
    check_size(60_000 * 3_073, budget.MEMBER, "CIFAR-10 in one file")
    check_size(128_117 * 12_288, budget.ARRAY, "a batch of ImageNet at 64x64")
    check_packed(100, 10_000, "a small file")
    assert io.DEFAULT_BUFFER_SIZE < budget.HEADER
