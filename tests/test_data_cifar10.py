"""CIFAR-10 in every form it travels in, made up in small; damage, tricks and interruptions."""

import hashlib
import http.server
import io
import json
import os
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from advpure.base.errors import BadInput
from advpure.data import cifar10, load_images
from advpure.data.cifar10_sample import CIFAR10_CLASSES
from advpure.data.files import open_files
from advpure.data.obtain import missing, obtain_cifar10
from advpure.data.pickled import read_batch

N = 12
Records = dict[str, NDArray[np.uint8]]


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    """Make six files of 12 images, and let their sums be the right ones."""
    generator = np.random.default_rng(0)
    made = {}
    for name in cifar10.SHA1:
        rows = generator.integers(0, 256, (N, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        made[name] = rows
        monkeypatch.setitem(cifar10.SHA1, name, hashlib.sha1(rows.tobytes()).hexdigest())
    monkeypatch.setattr(cifar10, "RECORDS", N)
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path / "data"))
    return made


def pixels(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images [n, 32, 32, 3]."""
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def png(image: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def binary(records: Records) -> dict[str, bytes]:
    return {f"cifar-10-batches-bin/{name}": rows.tobytes() for name, rows in records.items()}


def python(records: Records) -> dict[str, bytes]:
    def batch(rows: NDArray[np.uint8]) -> dict[bytes, object]:
        return {
            b"batch_label": b"a batch",
            b"labels": rows[:, 0].tolist(),
            b"data": np.ascontiguousarray(rows[:, 1:]),
            b"filenames": [b"x.png"] * len(rows),
        }

    return {
        f"cifar-10-batches-py/{name[:-4]}": pickle.dumps(batch(rows), protocol=2)
        for name, rows in records.items()
    }


def strips(records: Records) -> dict[str, bytes]:
    files = {
        f"package/{name[:-4]}.png": png(pixels(rows).reshape(N, 1024, 3))
        for name, rows in records.items()
    }
    train = [int(label) for name in list(records)[:5] for label in records[name][:, 0]]
    files["package/train_lables.json"] = json.dumps(train).encode()
    files["package/test_lables.json"] = json.dumps(
        records["test_batch.bin"][:, 0].tolist()
    ).encode()
    return files


def numbered(records: Records, form: str = "{split}/{word}/{number:05d}.png") -> dict[str, bytes]:
    files = {}
    for k, (name, rows) in enumerate(records.items()):
        split, start = ("test", 0) if name == "test_batch.bin" else ("train", N * k)
        for row, image in enumerate(pixels(rows)):
            label = int(rows[row, 0])
            path = form.format(
                split=split,
                word=CIFAR10_CLASSES[label],
                short={"airplane": "plane", "automobile": "car"}.get(
                    CIFAR10_CLASSES[label], CIFAR10_CLASSES[label]
                ),
                number=start + row,
                label=label,
                half=label // 2,
            )
            files[path] = png(image)
    return files


def arrays(records: Records, names: str = "x_{0} y_{0}", channels_first: bool = False) -> bytes:
    stored: dict[str, Any] = {}
    train = np.concatenate([records[name] for name in list(records)[:5]])
    for split, rows in (("train", train), ("test", records["test_batch.bin"])):
        images, labels = names.format(split).split()
        shaped = pixels(rows)
        stored[images] = shaped.transpose(0, 3, 1, 2) if channels_first else shaped
        stored[labels] = rows[:, :1].astype(np.int64)
    stream = io.BytesIO()
    np.savez(stream, **stored)
    return stream.getvalue()


HUB = (4, 3, 2, 5, 1)
"""The order in which the hub holds the training files."""


def parquet(records: Records, order: tuple[int, ...] = HUB) -> dict[str, bytes]:
    """Write the files of the hub: columns img {bytes, path} and label."""
    pyarrow = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table
    files = {}
    train = np.concatenate([records[f"data_batch_{k}.bin"] for k in order])
    for split, rows in (("train", train), ("test", records["test_batch.bin"])):
        pictures = [{"bytes": png(image), "path": None} for image in pixels(rows)]
        table = pyarrow.table({"img": pictures, "label": rows[:, 0].astype(np.int64)})
        stream = io.BytesIO()
        write(table, stream)
        files[f"plain_text/{split}-00000-of-00001.parquet"] = stream.getvalue()
    return files


def edm(records: Records, order: tuple[int, ...] = (1, 2, 3, 4, 5)) -> dict[str, bytes]:
    """Write what EDM's dataset tool makes of the training files."""
    train = np.concatenate([records[f"data_batch_{k}.bin"] for k in order])
    files = {f"00000/img{k:08d}.png": png(image) for k, image in enumerate(pixels(train))}
    labels = [[name, int(label)] for name, label in zip(files, train[:, 0], strict=True)]
    return {**files, "dataset.json": json.dumps({"labels": labels}).encode()}


def as_folder(files: dict[str, bytes], target: Path) -> Path:
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return target


def as_tar(files: dict[str, bytes], target: Path) -> Path:
    target = target.with_suffix(".tar.gz")
    with tarfile.open(target, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target


def as_zip(files: dict[str, bytes], target: Path) -> Path:
    target = target.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target


FORMS: dict[str, Callable[[Records], dict[str, bytes]]] = {
    "binary version": binary,
    "python version": python,
    "strips of PNG": strips,
    "PNG files": numbered,
    "npz archive": lambda records: {"cifar10.npz": arrays(records)},
    "Parquet files": parquet,
}


@pytest.mark.parametrize("pack", [as_folder, as_tar, as_zip])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_images(
    records: Records, tmp_path: Path, form: str, pack: Callable[[dict[str, bytes], Path], Path]
) -> None:
    source = pack(FORMS[form](records), tmp_path / "source")
    seen: list[int] = []
    done = obtain_cifar10(source, tell=seen.append)
    assert done == (tmp_path / "data" / "cifar10", form, list(records))
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    assert len(cifar10.read("test").labels) == N
    rows = records["data_batch_2.bin"]
    train = cifar10.read("train")
    assert train.labels[N : 2 * N].tolist() == rows[:, 0].tolist()
    assert train.pixels[N + 3, 2, 5, 7] == rows[3, 1 + 2 * 1024 + 5 * 32 + 7]
    assert obtain_cifar10(source).written == []


def test_png_names_may_carry_the_label_and_npz_other_names(
    records: Records, tmp_path: Path
) -> None:
    forms = (
        "{split}/{number}_{word}.png", "x/{split}/{number}_{label}.png",
        "cifar_{split}/{short}_{number:05d}.png", "{split}/{word}_{number}.png",
    )  # fmt: skip
    for k, form in enumerate(forms):
        source = as_folder(numbered(records, form), tmp_path / f"source{k}")
        assert len(obtain_cifar10(source, tmp_path / f"to{k}").written) == 6
    lone = tmp_path / "lone.npz"
    lone.write_bytes(arrays(records, "{0}_images {0}_labels", channels_first=True))
    assert obtain_cifar10(lone, tmp_path / "to").source == "npz archive"
    assert (tmp_path / "to" / "cifar10" / "test_batch.bin").is_file()


def test_edm_s_zip_holds_the_training_files_in_order(records: Records, tmp_path: Path) -> None:
    source = as_zip(edm(records), tmp_path / "edm")
    done = obtain_cifar10(source)
    assert (done.source, done.written) == ("zip of EDM", list(records)[:5])
    assert missing(done.folder) == ["test_batch.bin"]
    assert cifar10.read("train").labels[:N].tolist() == records["data_batch_1.bin"][:, 0].tolist()
    with pytest.raises(BadInput, match="holds no test images, which are missing; give another"):
        obtain_cifar10(source)
    other = as_folder(numbered(records, "cifar_{split}/{short}_{number:05d}.png"), tmp_path / "png")
    assert obtain_cifar10(other / "cifar_test").written == ["test_batch.bin"]


@pytest.mark.parametrize("form", ["parquet", "npz", "edm"])
def test_the_training_files_are_found_in_any_order_and_no_other_order_is_guessed(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def source(rows: Records, order: tuple[int, ...]) -> Path:
        turned = {
            f"data_batch_{k}.bin": rows[f"data_batch_{j}.bin"] for k, j in enumerate(order, 1)
        } | {"test_batch.bin": rows["test_batch.bin"]}
        made = {
            "parquet": lambda: parquet(turned, (1, 2, 3, 4, 5)), "edm": lambda: edm(turned),
            "npz": lambda: {"x.npz": arrays(turned)},
        }[form]()  # fmt: skip
        return as_folder(made, tmp_path / f"source{len(list(tmp_path.iterdir()))}")

    assert obtain_cifar10(source(records, (5, 4, 1, 2, 3))).written[:5] == list(records)[:5]
    sums = {"train": 0, "test": 0}
    for name, rows in records.items():
        for record in rows:
            digest = hashlib.sha1(record.tobytes()).digest()
            sums[name.partition("_")[0].replace("data", "train")] += int.from_bytes(
                digest[:8], "big"
            )
    monkeypatch.setattr(cifar10, "UNORDERED", {k: v % 2**64 for k, v in sums.items()})
    shuffled = {name: rows[::-1].copy() for name, rows in records.items()}
    with pytest.raises(BadInput, match="holds the official train images in another order"):
        obtain_cifar10(source(shuffled, (1, 2, 3, 4, 5)), tmp_path / "elsewhere")
    shuffled["data_batch_1.bin"][0, 5] ^= 1
    with pytest.raises(BadInput, match="has a wrong SHA1 sum"):
        obtain_cifar10(source(shuffled, (1, 2, 3, 4, 5)), tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"labels": None}, "lists no labels"),
        ([], "lists no labels"),
        ({"labels": []}, "does not hold one whole number an image"),
        ("[" * 100_000, "is damaged or no JSON"),
    ],
)
def test_an_edm_zip_without_labels_is_refused(
    records: Records, tmp_path: Path, listed: object, message: str
) -> None:
    text = listed if isinstance(listed, str) else json.dumps(listed)
    files = {**edm(records), "dataset.json": text.encode()}
    with pytest.raises(BadInput, match=message):
        obtain_cifar10(as_zip(files, tmp_path / "edm"))


@pytest.mark.parametrize("columns", [{"img": [1]}, {"label": [1]}, {"img": [1], "label": [1]}])
def test_parquet_files_of_other_columns_are_refused(tmp_path: Path, columns: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table
    write(pyarrow.table(columns), tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(BadInput, match=r"give one with the columns img|holds no PNG in column"):
        obtain_cifar10(tmp_path / "train-00000-of-00001.parquet", tmp_path / "to")


def test_load_images_reads_what_was_obtained(records: Records, tmp_path: Path) -> None:
    obtain_cifar10(as_folder(strips(records), tmp_path / "source"))
    images, labels, ids = load_images("cifar10", subset="0:4")
    rows = records["test_batch.bin"]
    assert labels.tolist() == rows[:4, 0].tolist()
    assert ids.tolist() == [0, 1, 2, 3]
    assert float(images[1, 0, 0, 5]) == pytest.approx(rows[1, 6] / 255)


def test_an_interrupted_call_goes_on_and_keeps_what_was_there(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = as_folder(binary(records), tmp_path / "source")
    write, calls = Path.write_bytes, []

    def failing(path: Path, content: bytes) -> int:
        calls.append(path)
        if len(calls) == 3:
            write(path, content[:100])
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(KeyboardInterrupt):
        obtain_cifar10(source)
    monkeypatch.undo()
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path / "data"))
    for name, rows in records.items():
        monkeypatch.setitem(cifar10.SHA1, name, hashlib.sha1(rows.tobytes()).hexdigest())
    monkeypatch.setattr(cifar10, "RECORDS", N)
    folder = tmp_path / "data" / "cifar10"
    assert sorted(path.name for path in folder.glob("*.bin")) == list(records)[:2]
    half = folder / "data_batch_3.bin"  # as a copy program that was killed leaves it
    half.write_bytes(records["data_batch_3.bin"].tobytes()[:500])
    os.utime(folder / "data_batch_1.bin")  # touched, not changed: read again, still right
    assert obtain_cifar10(source).written == list(records)[2:]


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_pixel_is_refused_and_nothing_appears(
    records: Records, tmp_path: Path, form: str
) -> None:
    changed = {name: rows.copy() for name, rows in records.items()}
    changed["data_batch_1.bin"][3, 100] ^= 1
    source = as_folder(FORMS[form](changed), tmp_path / "source")
    with pytest.raises(BadInput, match=r"data_batch_1\.bin from .* has a wrong SHA1 sum"):
        obtain_cifar10(source)
    assert not list((tmp_path / "data" / "cifar10").glob("*.bin"))


def test_swapped_files_are_refused(records: Records, tmp_path: Path) -> None:
    files = binary(records)
    one, two = (f"cifar-10-batches-bin/data_batch_{k}.bin" for k in (1, 2))
    files[one], files[two] = files[two], files[one]
    with pytest.raises(BadInput, match="wrong SHA1"):
        obtain_cifar10(as_folder(files, tmp_path / "source"))


def damaged(form: str, records: Records) -> dict[str, dict[str, bytes]]:
    """Return ways in which a form can be broken, with a part of the message."""
    files = FORMS[form](records)
    first = next(path for path in files if "1" in path or path.endswith("npz"))
    cut = {**files, first: files[first][: len(files[first]) // 2]}
    noise = {**files, first: b"\x00\x01 no such thing"}
    missing = {path: content for path, content in files.items() if path != first}
    return {"cut": cut, "noise": noise, "missing": missing}


@pytest.mark.parametrize("way", ["cut", "noise", "missing"])
@pytest.mark.parametrize("form", FORMS)
def test_damaged_sources_are_refused_in_one_line(
    records: Records, tmp_path: Path, form: str, way: str
) -> None:
    source = as_folder(damaged(form, records)[way], tmp_path / "source")
    source.mkdir(exist_ok=True)
    if (form, way) == ("Parquet files", "missing"):  # a whole split, without which the other is
        assert obtain_cifar10(source).written == ["test_batch.bin"]
        return
    with pytest.raises(BadInput) as refusal:
        obtain_cifar10(source)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_cut_archives_and_unknown_things_are_refused(records: Records, tmp_path: Path) -> None:
    whole = as_tar(binary(records), tmp_path / "whole")
    for size in (0, 10, whole.stat().st_size // 2):
        cut = tmp_path / f"cut{size}.tar.gz"
        cut.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(BadInput, match="no whole archive"):
            obtain_cifar10(cut)
    with pytest.raises(BadInput, match="is missing; give a folder"):
        obtain_cifar10(tmp_path / "none")
    with pytest.raises(BadInput, match="holds no CIFAR-10 that is known"):
        obtain_cifar10(as_folder({"readme.txt": b"hello"}, tmp_path / "other"))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("{split}/{word}/{half}.png", "has the number of"),
        ("{split}/{number}.png", "names no class"),
        ("{split}/axolotl/{number}.png", r"names no class \('axolotl'\)"),
    ],
)
def test_png_files_without_position_or_class_are_refused(
    records: Records, tmp_path: Path, form: str, message: str
) -> None:
    files = numbered(records, form)
    with pytest.raises(BadInput, match=message):
        obtain_cifar10(as_folder(files, tmp_path / "source"))


class _Trick:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("proof-that-code-ran",)


def test_a_batch_that_runs_code_is_refused_and_does_not_run(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = python(records)
    path = "cifar-10-batches-py/data_batch_1"
    files[path] = pickle.dumps({b"data": _Trick(), b"labels": [1]}, protocol=2)
    with pytest.raises(BadInput, match=r"asks for \w+\.mkdir, which plain data never"):
        obtain_cifar10(as_folder(files, tmp_path / "source"))
    assert not (tmp_path / "proof-that-code-ran").exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_batches_of_every_pickle_protocol_are_read(protocol: int) -> None:
    rows = np.random.default_rng(1).integers(0, 256, (3, 3073), dtype=np.uint8)
    rows[:, 0] = [0, 9, 4]
    batch = {"labels": [0, 9, 4], "data": np.ascontiguousarray(rows[:, 1:])}
    content = pickle.dumps(batch, protocol=protocol)
    assert np.array_equal(read_batch(content, "batch"), rows)


@pytest.mark.parametrize(
    "batch",
    [
        [],
        {},
        {"data": 3, "labels": [1]},
        {"data": np.zeros((1, 3072), np.float32), "labels": [1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [300]},
        {"data": np.asfortranarray(np.zeros((2, 3072), np.uint8)), "labels": [1, 2]},
    ],
)
def test_other_pickles_are_no_batches(batch: object) -> None:
    with pytest.raises(BadInput, match="is damaged or no CIFAR-10 batch"):
        read_batch(pickle.dumps(batch, protocol=2), "batch")


def test_members_that_point_outside_or_are_links_are_no_files(tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with open_files(path) as files:
        assert files.paths == []


class Server(http.server.BaseHTTPRequestHandler):
    """Serve one file with ranges; a connection can be made to break."""

    content = b""
    breaks_after: int | None = None
    requests: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        """Answer with the file from the asked position on."""
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        start = int(wanted[6:-1]) if wanted else 0
        body = self.content[start:]
        if wanted and not body:
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.breaks_after is None else body[: self.breaks_after])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[Server]]:
    """Serve the archive of the python version, and let torchvision name it."""
    datasets = pytest.importorskip("torchvision.datasets")
    archive = as_tar(python(records), tmp_path / "official")
    monkeypatch.setattr(Server, "content", archive.read_bytes())
    monkeypatch.setattr(Server, "requests", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
    monkeypatch.setattr(datasets.CIFAR10, "url", url)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(Server.content).hexdigest())
    yield Server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_is_checked_read_and_cleaned_away(served: type[Server]) -> None:
    assert obtain_cifar10().written == list(cifar10.SHA1)
    assert served.requests == [None]
    assert [path for path in cifar10.folder().iterdir() if "tar.gz" in path.name] == []


def test_a_broken_download_goes_on_where_it_broke(
    served: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "breaks_after", 1000)
    for _ in range(2):
        with pytest.raises(BadInput, match=r"failed \(.+\); run it again, or fetch"):
            obtain_cifar10()
    monkeypatch.setattr(served, "breaks_after", None)
    assert len(obtain_cifar10().written) == 6
    assert served.requests == [None, "bytes=1000-", "bytes=2000-"]


def test_a_finished_but_unread_download_is_not_fetched_again(
    served: type[Server], tmp_path: Path
) -> None:
    cifar10.folder().mkdir(parents=True)
    part = cifar10.folder() / "cifar-10-python.tar.gz.part"
    part.write_bytes(served.content)  # killed between the last byte and the new name
    assert len(obtain_cifar10().written) == 6
    assert served.requests == [f"bytes={len(served.content)}-"]


def test_a_download_of_another_file_is_refused_and_thrown_away(
    served: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "content", b"not the archive")
    with pytest.raises(BadInput, match=r"cifar-10-python\.tar\.gz has a wrong checksum"):
        obtain_cifar10()
    assert not list(cifar10.folder().iterdir())


def test_a_server_out_of_reach_is_one_line(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(
        BadInput, match=r"download of cifar-10-python\.tar\.gz failed \("
    ) as refusal:
        obtain_cifar10()
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("records")
def test_without_files_the_first_twenty_test_images_stand_in_and_say_so() -> None:
    with pytest.warns(UserWarning, match="first 20 test images, which foolbox carries") as told:
        found = load_images("cifar10", subset="5:8")
    assert "`advpure data cifar10` obtains all 60,000" in str(told[0].message)
    sample = load_images("cifar10-sample", subset="5:8")
    assert bool((found.images == sample.images).all())
    assert found.ids.tolist() == [5, 6, 7]
    for asked in ({"n": 21}, {"subset": "first-21"}, {"subset": "train", "n": 1}):
        with pytest.raises(BadInput, match=r"`advpure data cifar10` obtains all 60,000$"):
            load_images("cifar10", **asked)  # type: ignore[arg-type]


def test_wrong_files_name_the_command(records: Records, tmp_path: Path) -> None:
    obtain_cifar10(as_folder(binary(records), tmp_path / "source"))
    first = cifar10.folder() / "data_batch_1.bin"
    first.unlink()
    with pytest.raises(BadInput, match=r"data_batch_1\.bin is missing; run advpure data cifar10$"):
        load_images("cifar10", n=1, subset="train")
    path = cifar10.folder() / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"has 36,875 bytes; run advpure data cifar10"):
        load_images("cifar10", n=1)
    path.write_bytes(bytes(N * 3073))
    with pytest.raises(BadInput, match="has a wrong SHA1 sum; run advpure data cifar10"):
        load_images("cifar10", n=1)
    assert obtain_cifar10(tmp_path / "source").written == ["data_batch_1.bin", "test_batch.bin"]
