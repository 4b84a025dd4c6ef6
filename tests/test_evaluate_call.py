"""One call for models that are objects, what a report offers, and data sets that are objects."""

import dataclasses
import inspect
import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from quick_studies import quick
from torch import Tensor, nn
from torch.nn import functional

import advpure
from advpure import analysis, attacks, evaluate, load_classifier, load_images
from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.protocol import ADVERSARIAL
from advpure.analysis.robustness.study import Robustness
from advpure.base.errors import BadInput, MissingExtra
from advpure.core.given import as_defense, as_purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.loading import load_defense, load_purifier
from advpure.statistics.estimates import by_image_rows, flat_rows
from advpure.studies import STUDIES

XI = RandomnessConfig(0)
QUICK: dict[str, Any] = {"eps": 0.15, "steps": 2, "randomness": "fixed"}


class Blur(nn.Module):
    """Mix an image with its blurred version by a random share."""

    def __init__(self) -> None:
        """Evaluate."""
        super().__init__()
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        share = 0.5 * torch.rand(len(x), 1, 1, 1)
        return (1 - share) * x + share * functional.avg_pool2d(x, 3, 1, 1)


def keyed(images: Tensor, ids: Tensor, randomness: RandomnessConfig) -> Tensor:
    return images + 0.1 * randomness.normal(ids, "forward", 0, images.shape[1:])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def judge() -> nn.Module:
    return nn.Sequential(load_classifier("digits")).eval()


def digits(n: int = 4) -> Images:
    return load_images("digits", n=n)


def test_a_call_gives_what_the_command_line_gives_of_the_same_parts() -> None:
    from advpure.cli import run

    Path("mine.py").write_text(
        "from advpure import load_classifier\n"
        "def halve(x): return x / 2 + 0.25\n"
        "def judge(): return load_classifier('digits')\n"
    )
    images, labels, _ = digits(6)
    np.savez("images.npz", images=images.numpy(), labels=labels.numpy())
    own = evaluate("mine.py:halve", "mine.py:judge", "images.npz", eps="0.15", steps=2)
    line = "attack -d mine.py:halve --classifier mine.py:judge --dataset images.npz"
    assert run(f"{line} --eps 0.15 --steps 2 -q".split()) == 0
    assert [each.name for each in Path("runs").iterdir()] == [own.run.name]
    given = evaluate(lambda x: x / 2 + 0.25, judge(), images, labels, eps=0.15, steps=2)
    assert given.right == own.right
    assert given.run != own.run


def test_the_same_call_again_reports_from_the_records() -> None:
    images, labels, _ = digits()
    first = evaluate(None, judge(), images, labels, **QUICK)
    again = evaluate(None, judge(), images, labels, **QUICK)
    assert again.run == first.run
    assert any("already complete" in note for note in again.notes)
    other = evaluate(None, judge(), 1 - images, labels, **QUICK)
    assert other.run != first.run


@pytest.mark.parametrize(
    "given",
    [
        lambda x, y: (x, y),
        lambda x, y: (x.numpy(), y.tolist()),
        lambda x, y: (x.permute(0, 2, 3, 1).numpy(), y.numpy()),
        lambda x, y: ((x * 255).round().to(torch.uint8), y),
        lambda x, y: (Images(x, y, torch.arange(len(y))), None),
        lambda x, y: ({"images": x, "labels": y}, None),
        lambda x, y: ("i.npy", "l.npy"),
        lambda x, y: (Path("i.npy"), y),
    ],
)
def test_images_and_labels_come_in_many_forms(given: Any) -> None:
    images, labels, _ = digits()
    images = (images * 255).round() / 255
    np.save("i.npy", images.numpy())
    np.save("l.npy", labels.numpy())
    found = evaluate("none", judge(), *given(images, labels), **QUICK, out="a")
    plain = evaluate("none", judge(), images, labels, **QUICK, out="b")
    assert found.right == plain.right


def test_ids_that_images_come_with_stay_the_keys_of_randomness() -> None:
    images = load_images("digits", n=5, subset="10:20")
    own = evaluate("cm", judge(), images, weights="digits-cm", **QUICK)
    named = evaluate("cm", judge(), "digits", subset="10:15", **QUICK)
    assert own.right == named.right
    assert sorted(own.right[ADVERSARIAL]) == [10, 11, 12, 13, 14]
    for ids in ([0, 0, 1, 2, 3], [0, 1], [-1, 0, 1, 2, 3]):
        with pytest.raises(BadInput, match="ids of data set own images"):
            evaluate("none", judge(), images._replace(ids=torch.tensor(ids)), **QUICK)


@pytest.mark.slow
def test_purifiers_that_are_built_are_taken_as_they_are() -> None:
    images, labels, _ = digits()
    purifier = load_purifier("cm", "digits", xi=XI)
    whole = load_defense("cm", "digits", xi=XI)
    by_name = evaluate("cm", judge(), "digits", n=4, **QUICK)
    for given, classifier in (
        (purifier, judge()), (purifier.chain, judge()), (whole, None),
        (lambda x: judge()(x / 2 + 0.25), None),
    ):  # fmt: skip
        found = evaluate(given, classifier, images, labels, **QUICK)
        if not callable(given) or given in (purifier, whole):
            assert found.right == by_name.right
    built = load_defense(whole, (images, labels))
    assert built.purifier.settings["denoiser"] == whole.purifier.settings["denoiser"]
    with pytest.raises(BadInput, match="t 3 means nothing to a Purifier, which is built already"):
        evaluate(purifier, judge(), images, labels, t=3, **QUICK)
    with pytest.raises(BadInput, match="defense cm has its classifier"):
        evaluate(whole, judge(), images, labels, **QUICK)


def test_a_module_that_cannot_be_copied_is_measured() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lock, self.weight = threading.Lock(), nn.Parameter(torch.ones(()))
            self.twice = self.weight * 2
            self.training = False

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    images, labels, _ = digits()
    assert evaluate(Held(), judge(), images, labels, **QUICK).n == 4


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (lambda x, y: (x,), {}, "labels are missing; pass the true class"),
        (lambda x, y: (x, y), {"epss": 0.1}, "option 'epss' of evaluate .* did you mean eps"),
        (lambda x, y: (x, y), {"eps": None}, "has no default radius"),
        (lambda x, y: (x, y), {"defense": "cm"}, "defense is given by position"),
        (lambda x, y: (x, y), {"attack_options": {"steps": 3}}, "steps is given a second time"),
        (lambda x, y: (x, y[:2]), {}, "do not fit 4 images"),
        (lambda x, y: (x * 255, y), {}, r"span 0 to 255, not \[0, 1\]"),
        (lambda x, y: (Images(x, y, torch.arange(4)), y), {}, "brings labels of its own"),
        (lambda x, y: ("absent.npy", y), {}, "is no .npy file beside labels"),
        (lambda x, y: (3, None), {}, "own images"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    arguments: Any, settings: dict[str, Any], message: str
) -> None:
    images, labels, _ = digits()
    with pytest.raises(BadInput, match=message) as error:
        evaluate(None, judge(), *arguments(images, labels), **{**QUICK, **settings})
    assert "\n" not in str(error.value)


def test_every_setting_of_the_study_is_a_keyword_declared_there() -> None:
    names = set(inspect.signature(evaluate).parameters)
    fields = {each.name for each in dataclasses.fields(Robustness)}
    assert fields - names == {"defense", "dataset"}


def test_a_report_offers_text_a_frame_a_page_and_html() -> None:
    report = evaluate(None, judge(), *digits()[:2], **QUICK)
    text = report.table()
    assert report.display().headline in text
    assert "adversarial" in text
    assert f"records: {report.run}" in text
    html = report._repr_html_()
    assert html.startswith('<div class="advpure">')
    assert '<th scope="col">images</th>' in html
    assert "http" not in html
    page = report.report("page.html", title="My model")
    assert "<title>My model</title>" in page.read_text()
    with pytest.raises(BadInput, match="is no page"):
        report.report("page.txt")


@pytest.mark.parametrize("verb", ["cr", "two-point"])
def test_reports_of_other_studies_offer_the_same(verb: str, tmp_path: Path) -> None:
    assert verb in STUDIES
    report = quick(verb).run(out=tmp_path / "run")
    assert report.display().headline in report.table()
    assert "<strong>" in report._repr_html_()
    rows = flat_rows(report.tree())
    assert rows
    assert all({"name", "value", "n", "low", "high", "std"} <= row.keys() for row in rows)
    assert report.report(tmp_path / "page.html").is_file()


def test_numbers_become_frames_with_what_tells_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Compression(
        dataset="digits", defense="onestep-edm", n=3, eps="4/255,8/255", perturbations=2
    )
    report = study.run(out="cr")
    rows = [row for row in flat_rows(report.tree()) if row["name"] == "rows"]
    assert [row["eps"] for row in rows] == [4 / 255, 8 / 255]
    values = [row for row in by_image_rows(report.tree()) if row["name"] == "rows"]
    first = [row["value"] for row in values if row["eps"] == 4 / 255]
    assert sum(first) / 3 == pytest.approx(rows[0]["value"])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pip install 'advpure\[pandas\]' brings it"):
        report.to_pandas()


def test_a_frame_of_pandas() -> None:
    pytest.importorskip("pandas")
    report = evaluate(None, judge(), *digits()[:2], **QUICK)
    frame = report.to_pandas().set_index("name")
    assert frame.loc["robust_accuracy", "value"] == report.headline(ADVERSARIAL).value
    images = report.to_pandas(by_image=True)
    own = images[images["name"] == "robust_accuracy"]
    assert own["value"].mean() == report.headline(ADVERSARIAL).value
    assert own["sample"].tolist() == [0, 1, 2, 3]


GIVEN = {
    "a module that draws": Blur(),
    "a function of keys": keyed,
    "a function": lambda x: x / 2 + 0.2,
    "a chain": load_purifier("ddim", "digits", t=2).chain,
    "a purifier": load_purifier("ddim", "digits", t=2, xi=XI),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
def test_functions_of_questions_take_purifiers_as_objects(name: str) -> None:
    given, (images, labels, ids) = GIVEN[name], digits(2)
    rate = analysis.expected_compression_rate(given, images, perturbations=1, seeds=0, ids=ids)
    loaded = load_purifier(given, (images, labels), xi=XI) if name != "a function" else given
    same = analysis.expected_compression_rate(loaded, images, perturbations=1, seeds=0, ids=ids)
    assert rate.pooled[0].mean == pytest.approx(same.pooled[0].mean, rel=1e-6)
    analysis.infinitesimal_compression_rate(given, images, probes=1, seeds=0)
    analysis.leading_singular_values(given, images, count=1, basis=4, block=1, probes=1, seed=0)
    analysis.estimate_divergence(given, images, probes=1, ids=[0, 1])
    analysis.step_compression(given, images, probes=1, perturbations=1, directions=1)
    analysis.measure("distance", given, digits(2), out="measured")
    if name == "a function":
        with pytest.raises(BadInput, match="takes no randomness"):
            analysis.signal_to_noise(given, images, perturbations=2, configurations=2)
    else:
        analysis.signal_to_noise(given, images, perturbations=2, configurations=2)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.slow
def test_attacks_and_gradients_take_a_pair(name: str) -> None:
    pair, (images, labels, ids) = (GIVEN[name], judge()), digits(2)
    noise = analysis.gradient_noise(pair, images, labels, draws=2, reference=2, ids=ids)
    assert len(noise.images) == 2
    result = attacks.bpda(pair, images, labels, eps=0.1, steps=2)
    built = as_defense(pair, images)
    again = attacks.bpda(built, images, labels, eps=0.1, steps=2)
    assert torch.equal(result.images, again.images)
    attacks.standard(pair, images, labels, eps=0.1, budget=100)
    attacks.engine("foolbox:LinfPGD")(model=pair, images=images, labels=labels, eps=0.1, steps=2)
    crossed = attacks.transfer(
        "pgd", pair, images, labels, eps=0.1, steps=2, source_xi=RandomnessConfig(1)
    )
    assert crossed.images.shape == images.shape


def test_pairs_that_are_none_are_refused() -> None:
    images, labels, _ = digits(2)
    for pair, message in (
        ((judge(), judge()), "answers with logits, so it is a whole defense"),
        ((None, lambda x: x), "answers with images; return logits"),
        ((None, 3), "classifier 3 cannot be called"),
        ((None,), "a model of 1 parts is no pair"),
        ((advpure.load_denoiser("digits-edm"), judge()), "is a denoiser, not a purifier"),
    ):
        with pytest.raises(BadInput, match=message):
            attacks.pgd(pair, images, labels, eps=0.1)
    assert as_purifier(None, images)(images) is not None


def test_studies_take_data_sets_that_are_objects() -> None:
    images, labels, _ = digits(3)
    given: dict[str, Any] = {"defense": lambda x: x / 2, "eps": 0.1, "perturbations": 2}
    own = Compression(dataset=(images, labels), **given).run(out="own")
    named = Compression(dataset="digits", n=3, **given).run(out="named")
    assert own.result.rows == named.result.rows
    assert own.settings["dataset"] == "own images"
    assert len(own.settings["images"]) == 64
    assert named.settings["dataset"] == "digits"


class Pictures:
    """What torchvision calls a data set."""

    classes = ("dark", "bright")

    def __len__(self) -> int:
        """Return how many there are."""
        return 6

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        """Return a grey picture and its class."""
        pixels = np.full((8, 8, 3), 40 * place, dtype=np.uint8)
        return Image.fromarray(pixels), place // 3


@pytest.mark.slow
def test_a_torchvision_data_set_is_one_as_an_object_and_by_import_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images, labels, _ = load_images(Pictures())
    assert images.shape == (6, 3, 8, 8)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images[:, 0, 0, 0].tolist() == pytest.approx([40 * k / 255 for k in range(6)])
    pytest.importorskip("torchvision")
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=r"torchvision.datasets:MNIST fails \(RuntimeError: Dataset"):
        load_images("torchvision.datasets:MNIST")
    raw = tmp_path / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("t10k", "train"):
        (raw / f"{kind}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes([7] * 2 * 784)
        )
        (raw / f"{kind}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 4]))
    images, labels, _ = load_images("torchvision.datasets:MNIST")
    assert images.shape == (2, 1, 28, 28)
    assert labels.tolist() == [3, 4]
    assert images.unique().tolist() == pytest.approx([7 / 255])


def _png(shade: int, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (8, 8), shade if mode == "L" else (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_parquet_of_the_hub_is_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"]}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}

    def write(file: str, mode: str, **columns: Any) -> None:
        pictures = [{"bytes": _png(50 * k, mode), "path": None} for k in range(3)]
        table = pyarrow.table({"image": pictures, "label": [0, 1, 1], **columns})
        parquet.write_table(table.replace_schema_metadata(about), file)

    write("test.parquet", "RGB")
    images, labels, _ = load_images("test.parquet")
    assert images.shape == (3, 3, 8, 8)
    assert images[:, 0, 0, 0].tolist() == pytest.approx([0, 50 / 255, 100 / 255])
    assert labels.tolist() == [0, 1, 1]
    assert advpure.data.dataset_info("test.parquet").classes == ("cat", "dog")
    write("grey.parquet", "L")
    assert load_images("grey.parquet").images.shape == (3, 1, 8, 8)
    parquet.write_table(pyarrow.table({"text": ["a"]}), "text.parquet")
    Path("torn.parquet").write_bytes(Path("test.parquet").read_bytes()[:100])
    for file, message in (
        ("text.parquet", "has the columns text, none of pictures"),
        ("torn.parquet", "is damaged or no Parquet file"),
        ("absent.parquet", "is missing"),
    ):
        with pytest.raises(BadInput, match=message):
            load_images(file)
    write("again.parquet", "RGB")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"advpure\[parquet\]"):
        load_images("again.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_classifiers_by_the_names_of_the_libraries(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    name, pen = f"{library}:resnet18", torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 32, 32, generator=pen)
    given = (images, torch.arange(6) % 3)
    drawn = load_classifier(given, name, options={"weights": "random"})
    logits = drawn(images)
    assert logits.shape == (6, 3)
    assert torch.equal(load_classifier(given, name, options={"weights": "random"})(images), logits)
    torch.save(drawn.function.state_dict(), "weights.pt")  # type: ignore[union-attr, operator]
    read = load_classifier(given, name, options={"weights": "weights.pt"}, normalize="0/1")
    assert torch.equal(read(images), logits)
    with pytest.raises(BadInput, match=r"do not fit .*:resnet34"):
        load_classifier(given, f"{library}:resnet34", options={"weights": "weights.pt"})
    with pytest.raises(BadInput, match=r"is no network of .*did you mean resnet"):
        load_classifier(given, f"{library}:resnet81", options={"weights": "random"})
    with pytest.raises(BadInput, match=r"option 'weight' .* did you mean weights"):
        load_classifier(given, name, options={"weight": "random"})
    monkeypatch.setenv("TORCH_HOME", str(Path.cwd()))
    monkeypatch.setenv("HF_HUB_CACHE", str(Path.cwd()))
    if library == "torchvision":
        with pytest.raises(BadInput, match=r"are not in .*classifier-option weights=FILE"):
            load_classifier(given, name)
        from torchvision.models import get_model, get_model_weights

        cache = Path.cwd() / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        file = get_model_weights("resnet18").DEFAULT.url.rpartition("/")[2]
        torch.save(get_model("resnet18", weights=None).state_dict(), cache / file)
        assert load_classifier(given, name, normalize="0.5/0.5")(images).shape == (6, 1000)
    monkeypatch.setitem(sys.modules, library, None)
    if library == "torchvision":
        monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingExtra, match=r"pip install 'advpure\[hub\]'"):
        load_classifier(given, name, options={"weights": "random"})
