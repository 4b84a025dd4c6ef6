"""Models of users by name or as objects: the same numbers as registered ones, keyed randomness."""

import contextlib
import functools
import importlib
import io
import json
import random
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_lines import JUDGED, LINES
from torch import Tensor, nn
from torch.nn import functional

from advpure.analysis.compression.study import Compression
from advpure.analysis.metrics.measure import METRICS
from advpure.analysis.robustness.study import Robustness
from advpure.attacks.registry import ATTACKS
from advpure.base import imports
from advpure.base.errors import BadInput
from advpure.base.fingerprint import fingerprint
from advpure.base.imports import load_code
from advpure.base.registry import Registry
from advpure.cli import run
from advpure.core.randomness import RandomnessConfig
from advpure.data import DATASETS, load_images
from advpure.loading import load_classifier, load_defense, load_purifier
from advpure.own_classifiers import CLASSIFIERS
from advpure.purifiers import PURIFIERS
from advpure.studies import STUDIES

XI = RandomnessConfig(0)
MINE = '''
"""A random blur, a denoiser and a classifier."""

import torch
from torch import nn
from torch.nn import functional

from advpure import load_classifier, load_denoiser


class Purifier(nn.Module):
    def __init__(self, strength: float = 0.9) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, images):
        amount = self.strength * torch.rand(len(images), 1, 1, 1)
        return (1 - amount) * images + amount * functional.avg_pool2d(images, 3, 1, 1)


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = load_classifier("digits")

    def forward(self, pixel_values, labels=None):
        return Answer(self.network(pixel_values))


def classifier():
    return load_classifier("digits")


def denoiser():
    network = load_denoiser("digits-edm")
    return lambda x, sigma: network(x, sigma)


def whole():
    purifier, judge = Purifier(), classifier()
    return lambda images: judge(purifier(images))
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a user's file and images, which is the working directory."""
    (tmp_path / "mine.py").write_text(MINE)
    images, labels, _ = load_images("digits", n=20)
    pixels = (images * 16).round().numpy() / 16
    np.savez(tmp_path / "images.npz", images=pixels.astype(np.float32), labels=labels.numpy())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(line: str) -> dict[str, Any]:
    """Run a line and return its JSON."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run(line.split()) == 0
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


def attack(more: str) -> dict[str, Any]:
    return answer(f"attack --eps 0.2 --steps 2 --step-size 0.2 -n 20 --json {more}")


def margins(found: dict[str, Any]) -> list[float]:
    from advpure.runs.records import RecordStore

    with RecordStore.read(found["run"]) as store:
        return [row["margin"] for row in store.rows("decisions")]


@pytest.mark.slow
def test_a_file_gives_the_bits_of_the_same_parts_registered(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = "-d mine.py:Purifier --classifier mine.py:classifier --dataset images.npz"
    own = attack(f"{parts} --out a")
    monkeypatch.syspath_prepend(str(mine))
    PURIFIERS.register("random-blur", "registered_parts:Blur")
    (mine / "registered_parts.py").write_text(REGISTERED)
    try:
        theirs = attack("-d random-blur --dataset digits --out b")
    finally:
        del PURIFIERS._entries["random-blur"]
    assert margins(own) == margins(theirs)
    assert len(set(margins(own))) > 100
    assert margins(attack(f"{parts} --batch-size 7 --out c")) == margins(own)
    assert own["robust_accuracy"] == theirs["robust_accuracy"]
    assert own["settings"]["defense"]["draws"] == "generator"


REGISTERED = '''
"""The random blur as one of ours, with its draws written out."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from advpure.base.units import to_model, to_unit
from advpure.core.chain import Chain, Step
from advpure.core.randomness import row_seed
from advpure.core.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Blur(Recipe):
    network = None
    strength: float = 0.9

    def chain(self, denoiser):
        def images(x, keys):
            rows = []
            for xi, sample in keys:
                pen = torch.Generator().manual_seed(row_seed(xi, sample))
                rows.append(torch.rand(1, 1, 1, 1, generator=pen))
            amount = self.strength * torch.cat(rows)
            return (1 - amount) * x + amount * functional.avg_pool2d(x, 3, 1, 1)

        def move(x, keys):
            return to_model(images(to_unit(x), keys))

        step = Step(
            name="blur", phase="reverse", time=0, move=move, images=images, noisy=True, keyed=True,
            evaluations=1,
        )
        return Chain([step])
'''


@pytest.mark.slow
def test_a_denoiser_of_a_file_gives_the_bits_of_the_shipped_one(mine: Path) -> None:
    own = attack("--denoiser mine.py:denoiser -d ddpm --t 20 --dataset digits --fix-random --out a")
    ours = attack("--weights digits-edm -d ddpm --t 20 --dataset digits --fix-random --out b")
    assert margins(own) == margins(ours)
    assert own["settings"]["defense"]["denoiser"]["name"] == "mine.py:denoiser"


@pytest.mark.parametrize("verb", LINES)
def test_every_study_takes_them(mine: Path, verb: str) -> None:
    judge = "--classifier mine.py:classifier" if verb in JUDGED else ""
    line = f"{verb} -d mine.py:Purifier --dataset images.npz -n 2 {LINES[verb]} {judge}"
    found = answer(f"{line} --json -q")
    assert found["settings"]["dataset"] == "images.npz"


def test_studies_take_objects(mine: Path) -> None:
    network = load_classifier("digits")
    judge = nn.Sequential(network)
    judge.training = False
    given: dict[str, Any] = {"dataset": "digits", "n": 3, "eps": 0.1}
    study = Robustness(
        defense=lambda x: x / 2 + 0.1, classifier=judge, attack_options={"steps": 1}, **given
    )
    report = study.run(out=mine / "object")
    assert report.settings["defense"]["purifier"] == "<lambda>"
    assert len(report.settings["defense"]["code"]) == 64
    with pytest.raises(BadInput, match="no key controls"):
        Robustness(defense=Private(), randomness="fixed", **given).load()
    with pytest.raises(BadInput, match="no key controls"):
        Compression(defense=Private(), **given).run(out=mine / "private")
    fresh = Robustness(defense=Private(), attack_options={"steps": 1}, draws=2, **given)
    assert fresh.run(out=mine / "fresh").settings["defense"]["draws"] == "fresh"
    halved = Compression(defense=lambda x: x / 2, **given).run(out=mine / "halved")
    assert halved.tree()["rows"][0].value == pytest.approx(0.5)
    with pytest.raises(BadInput, match=r"defense 3 is not a text"):
        Robustness(defense=3, **given)


def test_recorded_code_is_verified_when_it_is_trusted(mine: Path) -> None:
    attack("-d mine.py:Purifier --classifier mine.py:classifier --dataset images.npz --out a")
    assert run(["verify", "a"]) == 2
    assert run(["verify", "a", "--trust"]) == 0
    text = (mine / "mine.py").read_text()
    (mine / "mine.py").write_text(f"{text}\n# edited\n")
    assert run(["verify", "a", "--trust"]) == 1


def test_verbs_that_read_records_never_run_the_code_that_these_name(mine: Path) -> None:
    parts = "-d mine.py:Purifier --classifier mine.py:classifier --dataset images.npz"
    for shard in ("1", "2"):
        line = f"attack {parts} --eps 0.2 --steps 1 --step-size 0.2 -n 4 --fix-random -q"
        assert run(f"{line} --shard {shard}/2 --out part{shard}".split()) == 0
    (mine / "mine.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    for line, code in {
        "merge part1 part2 --to whole": 0,
        "plot whole --to whole.png": 0,
        "report whole part1 --to whole.html": 0,
        "report whole part1 --as leaderboard --to board.html": 0,
        "export whole --to whole.csv": 0,
        "audit whole -q": 1,
        "verify whole": 2,
    }.items():
        assert run(line.split()) == code, line
        assert not (mine / "ran").exists(), line


def test_objects_that_hold_other_values_are_other_runs() -> None:
    def scaled(by: float) -> Any:
        return lambda x: x * by

    class Held(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return x * self.by

    for make in (scaled, Held, lambda by: functools.partial(torch.mul, other=by)):
        one, same, other = (load_purifier(make(by), "digits") for by in (0.5, 0.5, 0.7))
        assert one.settings["code"] == same.settings["code"] != other.settings["code"]
    network = nn.Conv2d(1, 1, 1)
    before = fingerprint(network)
    network.eval()
    assert fingerprint(network) == before
    network.weight.data += 1
    assert fingerprint(network) != before


def test_what_libraries_hold_is_no_part_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def through(x: Tensor) -> Tensor:
        return load_purifier("cm", "digits").chain(torch.nn.functional.relu(x))

    before = fingerprint(through)
    # A cache that fills while others work, with something that cannot be looked into.
    for cache in (load_purifier, nn.functional.relu):
        monkeypatch.setitem(cache.__globals__, "Tensor", {type(through): object()})
    assert fingerprint(through) == before
    assert fingerprint(type(through)) != fingerprint(int)
    Own = type("Own", (), {"__module__": "nowhere", "one": lambda _: 1})
    Other = type("Own", (), {"__module__": "nowhere", "one": lambda _: 2.0})
    assert fingerprint(Own) != fingerprint(Other)


def test_gradients_of_a_denoiser_of_a_file_are_proved(mine: Path) -> None:
    (mine / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.layer = nn.Conv2d(1, 1, 3, padding=1)\n"
        "    def forward(self, x, sigma): return self.layer(x)\n"
    )
    found = answer("check-grad -d ddpm --t 2 --denoiser net.py:Net -n 1 --directions 1 --json")
    assert found["passed"]
    assert found["settings"]["purifiers"]["ddpm"]["denoiser"]["name"] == "net.py:Net"
    assert answer("check-grad -d mine.py:Purifier -n 1 --directions 1 --json")["passed"]


def test_an_answer_with_logits_is_a_classifier(mine: Path) -> None:
    own = attack("-d none --classifier mine.py:Transformer --dataset images.npz --out a")
    ours = attack("-d none --dataset digits --out b")
    assert margins(own) == margins(ours)


def test_a_model_of_classes_is_a_whole_defense(mine: Path) -> None:
    whole = attack("-d mine.py:whole --dataset images.npz --fix-random --out a")
    assert whole["settings"]["defense"]["draws"] == "generator"
    assert whole["clean_accuracy"] >= 0.8
    with pytest.raises(BadInput, match="is a whole defense, with its classifier"):
        load_defense("mine.py:whole", "images.npz", classifier="mine.py:classifier")
    with pytest.raises(BadInput, match="so it is a whole defense"):
        load_purifier("mine.py:whole", "images.npz")


class Noisy(nn.Module):
    """Draw from the three global generators."""

    def forward(self, x: Tensor) -> Tensor:
        """Add noise."""
        shift = float(np.random.rand()) + random.random()  # noqa: NPY002
        return x + 0.1 * torch.randn_like(x) + 0.01 * shift


@pytest.mark.parametrize("tile", [0, 4, 32])
def test_global_generators_are_keyed_by_sample(tile: int) -> None:
    purifier = load_purifier(Noisy(), "digits", xi=XI, tile=tile)
    assert purifier.is_random
    images, _, ids = load_images("digits", n=7)
    state = torch.get_rng_state(), random.getstate()
    whole = purifier.at(ids=ids)(images)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    order = torch.tensor([6, 2, 0])
    assert torch.equal(purifier.at(ids=ids[order])(images[order]), whole[order])
    assert torch.equal(load_purifier(Noisy(), "digits", xi=XI).at(ids=ids)(images), whole)
    other = purifier.at(ids=ids, xi=RandomnessConfig(1))(images)
    assert not torch.isclose(other, whole).all(dim=1).any()
    draws = (whole - images).flatten()
    assert 0.05 < float(draws.std()) < 0.2


def test_a_classifier_that_draws_is_keyed_too() -> None:
    network = load_classifier("digits")
    defense = load_defense(
        "none", "digits", xi=XI, classifier=lambda x: network(functional.dropout(x, 0.5))
    )
    assert defense.is_random
    images, _, ids = load_images("digits", n=5)
    logits = defense.at(ids=ids)(images)
    order = torch.tensor([4, 1])
    assert torch.equal(defense.at(ids=ids[order])(images[order]), logits[order])
    assert not torch.equal(logits, network(images))
    several = load_defense(
        "none", "digits", xi=XI, policy="eot:3", classifier=lambda x: network(functional.dropout(x))
    )
    assert not torch.equal(several.at(ids=ids)(images), logits)


def test_the_gradient_sees_the_draws_of_the_answer() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rand(len(x), 1, 1, 1)

    images, _, ids = load_images("digits", n=5)
    for mode in ("full", "checkpoint"):
        purifier = load_purifier(Scaled(), "digits", xi=XI, gradient=mode).at(ids=ids)
        x = images.clone().requires_grad_()
        y = purifier(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal((gradient * images).detach(), y.detach())


def test_a_function_with_keys_draws_by_them() -> None:
    def keyed(images: Tensor, ids: Tensor, randomness: RandomnessConfig) -> Tensor:
        return images + 0.1 * randomness.normal(ids, "forward", 0, images.shape[1:])

    images, _, ids = load_images("digits", n=5)
    purifier = load_purifier(keyed, "digits", xi=XI)
    assert purifier.settings["draws"] == "keyed"
    expected = images + 0.1 * XI.normal(ids, "forward", 0, (1, 8, 8))
    assert torch.equal(purifier.at(ids=ids)(images), expected)


class Private(nn.Module):
    """Draw from a generator of its own."""

    def __init__(self) -> None:
        """Make the generator."""
        super().__init__()
        self.pen = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        """Add noise."""
        return x + 0.1 * torch.from_numpy(self.pen.standard_normal(x.shape)).to(x)


def test_what_no_key_controls_is_fresh_and_never_fixed() -> None:
    from advpure.attacks import PGDSettings, pgd

    defense = load_defense(Private(), "digits", xi=XI)
    assert defense.purifier.settings["draws"] == "fresh"
    images, labels, ids = load_images("digits", n=2)
    settings = {"eps": 0.1, "norm": "linf", "steps": 1}
    with pytest.raises(BadInput, match="no key controls what it draws"):
        pgd(defense, images, labels, PGDSettings(**settings, randomness="fixed"), ids=ids)
    found = pgd(defense, images, labels, PGDSettings(**settings, randomness="fresh"), ids=ids)
    assert found.images.shape == images.shape


def test_train_mode_counts_by_behaviour_and_is_never_switched() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 2 if self.training else x

    with pytest.raises(BadInput, match=r"in training mode answers otherwise .* \.eval\(\)"):
        load_purifier(Branch(), "digits")
    harmless = nn.Sequential(nn.Dropout(0.0), nn.Identity())
    assert harmless.training
    load_defense(harmless, "digits")
    assert harmless.training
    assert harmless[0].training
    always = load_purifier(lambda x: functional.dropout(x, 0.5), "digits")
    assert always.settings["draws"] == "generator"


def test_a_cut_gradient_is_noticed_with_the_ways_out() -> None:
    ways = r"no gradient .*bpda.*surrogate.*square.* many more calls"
    with pytest.warns(UserWarning, match=ways):
        load_purifier(lambda x: (x * 255).round() / 255, "digits")
    with pytest.warns(UserWarning, match=ways):  # which fails on what has a graph
        purifier = load_purifier(lambda x: torch.from_numpy(np.round(x.numpy())), "digits")
    x = torch.full((1, 1, 8, 8), 0.75, requires_grad=True)
    with pytest.raises(BadInput, match=r"fails \(RuntimeError: .*needs --gradient bpda"):
        purifier(x)
    purifier.at(gradient="bpda")(x).sum().backward()
    assert x.grad is not None
    assert x.grad.unique().tolist() == [1.0]


def test_a_stand_in_is_the_surrogate_gradient() -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 8).round() / 8

        def surrogate(self, x: Tensor) -> Tensor:
            return 3.0 * x

    images, _, ids = load_images("digits", n=2)
    purifier = load_purifier(Rounded(), "digits", gradient="surrogate").at(ids=ids)
    x = images.clone().requires_grad_()
    y = purifier(x)
    assert torch.equal(y.detach(), (images * 8).round() / 8)
    assert torch.autograd.grad(y.sum(), x)[0].unique().tolist() == [3.0]


def test_a_model_sees_the_pixels_as_they_are() -> None:
    seen: list[Tensor] = []

    def look(images: Tensor) -> Tensor:
        seen.append(images.detach().clone())
        return images

    images = torch.arange(64).reshape(1, 1, 8, 8) / 255
    load_purifier(look, "digits", tile=0).at(ids=[0])(images)
    assert torch.equal(seen[-1], images)


BROKEN = {
    "nothere.py:Purifier": r"names no file, there is no nothere\.py; check",
    "mina.py:Purifier": r"no mina\.py; did you mean mine\.py\?",
    "mine.py:Purifer": r"no attribute 'Purifer' of mine\.py; did you mean Purifier\?",
    "broken.py:x": r"ModuleNotFoundError: No module named 'absent_package', line 2",
    "syntax.py:x": r"SyntaxError: .*, line 1",
    "values.py:Net": "is a denoiser, not a purifier; write --denoiser",
    "no.such.module:x": "names no module, there is no no",
    "values.py:NUMBER": "is of type int, not a model",
    "values.py:two": r"needs images, other; give -o images=VALUE -o other=VALUE",
    "values.py:fails": r"fails \(ValueError: bad\)",
    "values.py:shape": r"answers with \[2, 3\]|answers with \[2, 1, 4, 4\]",
}


@pytest.mark.parametrize("name", BROKEN)
def test_code_that_cannot_be_used_is_refused_in_one_line(mine: Path, name: str) -> None:
    (mine / "broken.py").write_text("x = 1\nimport absent_package\n")
    (mine / "syntax.py").write_text("def (:\n")
    (mine / "values.py").write_text(
        "from advpure.core.denoisers import Denoiser\n"
        "class Net(Denoiser): pass\n"
        "NUMBER = 3\n"
        "def two(images, other): return images\n"
        "def fails(): raise ValueError('bad')\n"
        "def shape(images): return images[:, :, :4, :4]\n"
    )
    with pytest.raises(BadInput, match=BROKEN[name]) as error:
        load_purifier(name, "digits")
    assert "\n" not in str(error.value)


def test_options_are_the_parameters_of_the_code(mine: Path) -> None:
    purifier = load_purifier("mine.py:Purifier", "digits", strength="1/4")
    assert purifier.settings["strength"] == 0.25
    with pytest.raises(BadInput, match="did you mean strength"):
        load_purifier("mine.py:Purifier", "digits", strenght=0.5)


def test_defaults_of_torch_that_code_sets_are_its_own(mine: Path) -> None:
    (mine / "double.py").write_text(
        textwrap.dedent("""
        import torch
        from torch import nn
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        class Halve(nn.Module):
            def __init__(self):
                super().__init__()
                self.share = nn.Parameter(torch.tensor([0.5]))
            def forward(self, x):
                assert torch.ones(1).dtype == self.share.dtype == torch.float64
                torch.set_default_device("meta")
                torch.set_grad_enabled(False)
                with torch.enable_grad():
                    return x * self.share
        """)
    )
    for _ in range(2):
        images, labels, ids = load_images("digits", n=2)
        defense = load_defense("double.py:Halve", "digits", classifier="mine.py:classifier")
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(defense.bind(ids)(x).sum(), x)
        assert gradient.any()
        here = torch.ones(1)
        assert (here.dtype, here.device.type) == (torch.float32, "cpu")
        assert torch.is_grad_enabled()
        assert torch.equal(load_classifier("digits")(images).argmax(1), labels)


def test_edited_code_is_another_run(mine: Path) -> None:
    (mine / "helper.py").write_text("FACTOR = 0.5\n")
    (mine / "uses.py").write_text("import helper\ndef f(x): return x * helper.FACTOR\n")

    def code() -> Any:
        study = Robustness(defense="uses.py:f", dataset="digits", n=2, eps=0.1)
        return study.load().settings["defense"]["code"]

    first = code()
    assert code() == first
    (mine / "helper.py").write_text("FACTOR = 0.7\n")
    assert code() != first
    ones = torch.ones(1, 1, 8, 8)
    assert load_purifier("uses.py:f", "digits")(ones).max().item() == pytest.approx(0.7)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read for the sake of a digest, as they are."""
    seen: list[str] = []
    before = imports._imported

    def watched(path: Path, root: Path) -> Iterator[str]:
        seen.append(path.relative_to(root).as_posix())
        return before(path, root)

    monkeypatch.setattr(imports, "_imported", watched)
    return seen


@pytest.mark.parametrize("name", ["torch.nn:Identity", "torch:relu", "json.decoder:JSONDecoder"])
def test_an_installed_library_is_not_read_but_identified_by_its_version(
    read: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_code(name, "model").sha256
    assert load_code(name, "model").sha256 == first
    assert read == []
    if name.startswith("torch"):
        public, _, build = torch.__version__.partition("+")
        monkeypatch.setattr(torch, "__version__", f"{public}+{'cpu' if build != 'cpu' else 'cu'}")
        assert load_code(name, "model").sha256 == first  # another build of the same code
        monkeypatch.setattr(torch, "__version__", "0.1")
        assert load_code(name, "model").sha256 != first


def test_code_of_this_package_is_identified_by_its_version(read: list[str]) -> None:
    one = load_code("advpure.loading:load_judge", "model").sha256
    assert one == load_code("advpure.loading:load_purifier", "model").sha256
    assert read == []


def test_the_digest_of_a_file_reads_what_stands_beside_it_and_no_library(
    mine: Path, read: list[str]
) -> None:
    """A checkout of this package may stand where the file does."""
    for folder in ("advpure", "kit"):
        (mine / folder).mkdir(parents=True)
        (mine / folder / "__init__.py").write_text("from . import inner\n")
        (mine / folder / "inner.py").write_text("NUMBER = 1\n")
    (mine / "odd.py").write_text(
        "import torch, kit, advpure\ndef f(x): return x * kit.inner.NUMBER\n"
    )
    first = load_code("odd.py:f", "purifier").sha256
    assert set(read) == {"odd.py", "kit/__init__.py", "kit/inner.py"}
    (mine / "advpure" / "inner.py").write_text("NUMBER = 2\n")
    assert load_code("odd.py:f", "purifier").sha256 == first
    (mine / "kit" / "inner.py").write_text("NUMBER = 2\n")
    assert load_code("odd.py:f", "purifier").sha256 != first


def test_a_package_of_ones_own_is_read_whole(
    mine: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "own_kit").mkdir()
    (mine / "own_kit" / "__init__.py").write_text("")
    (mine / "own_kit" / "a.py").write_text("import torch\nfrom . import b\nf = abs\n")
    (mine / "own_kit" / "b.py").write_text("NUMBER = 1\n")
    monkeypatch.syspath_prepend(str(mine))
    first = load_code("own_kit.a:f", "model").sha256
    assert set(read) == {"own_kit/__init__.py", "own_kit/a.py", "own_kit/b.py"}
    (mine / "own_kit" / "b.py").write_text("NUMBER = 2\n")
    assert load_code("own_kit.a:f", "model").sha256 != first


def test_chance_on_plain_images_asks_for_the_normalisation(mine: Path) -> None:
    (mine / "scaled.py").write_text(
        textwrap.dedent("""
        from advpure import load_classifier
        network = load_classifier("digits")
        def judge(x): return network(1.0 - (x * 0.25 + 0.5))
        def inverse(x): return network(x * 0.25 + 0.5)
        """)
    )
    with pytest.raises(BadInput, match=r"no better than chance .*--normalize MEAN/STD"):
        load_defense("none", "images.npz", classifier="scaled.py:judge")
    model = load_classifier("images.npz", "scaled.py:inverse", normalize="0.5/0.25")
    images, labels, _ = load_images("images.npz")
    assert (model(images).argmax(1) == labels).float().mean() > 0.9
    for text, rule in {
        "0.5": "is no MEAN/STD", "1,2/1": "unequal length", "0/0": "divides by 0",
    }.items():  # fmt: skip
        with pytest.raises(BadInput, match=rule):
            load_classifier("images.npz", "scaled.py:inverse", normalize=text)


def test_programs_are_classifiers_and_pickles_are_not(mine: Path) -> None:
    network = load_classifier("digits")
    images, labels, _ = load_images("digits", n=20)
    torch.jit.save(torch.jit.trace(network, images), "script.pt")  # type: ignore[no-untyped-call]
    program = torch.export.export(network, (images[:64].repeat(4, 1, 1, 1)[:64],))
    torch.export.save(program, "network.pt2")
    for file in ("script.pt", "network.pt2"):
        defense = load_defense("none", "images.npz", classifier=file)
        assert (defense(images).argmax(1) == labels).float().mean() > 0.9
    torch.save(network, "whole.pt")
    with pytest.raises(BadInput, match=r"is no safetensors file; .* file\.py:make"):
        load_defense("none", "images.npz", classifier="whole.pt")


EXAMPLE = '''
"""A package of somebody else's."""

from torch.nn import functional


def blur(images, size: int = 3):
    return functional.avg_pool2d(images, size, 1, size // 2)


def judge():
    from advpure import load_classifier

    return load_classifier("digits")


def brightness(purifier, images):
    return purifier(images).flatten(1).mean(1)


def images():
    from advpure import load_images

    return load_images("digits", n=20)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package with entry points, for as long as a test."""
    (tmp_path / "example_defenses.py").write_text(EXAMPLE)
    about = tmp_path / "example_defenses-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: example-defenses\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[advpure.purifiers]\nexample-blur = example_defenses:blur\ncm = example_defenses:blur\n"
        "[advpure.classifiers]\nexample-judge = example_defenses:judge\n"
        "[advpure.datasets]\nexample-images = example_defenses:images\n"
        "[advpure.metrics]\nexample-brightness = example_defenses:brightness\n"
        "[advpure.attacks]\nexample-pgd = advpure.attacks.projected:pgd\n"
        "[advpure.studies]\nexample-cr = advpure.analysis.compression.study:Compression\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registries: list[Registry[Any]] = [
        PURIFIERS, CLASSIFIERS, DATASETS, ATTACKS, METRICS, STUDIES,
    ]  # fmt: skip
    for each in registries:
        each._is_complete = False
    yield
    for each in registries:
        for name in [name for name, entry in each._entries.items() if entry.is_foreign]:
            del each._entries[name]
    sys.modules.pop("example_defenses", None)


@pytest.mark.usefixtures("package")
def test_other_packages_register_by_entry_points() -> None:
    with pytest.warns(UserWarning, match="'cm' of example-defenses is ignored"):
        assert "example-blur" in PURIFIERS.names()
    assert PURIFIERS.about("example-blur") == "from example-defenses"
    with pytest.raises(BadInput, match="did you mean example-blur"):
        load_purifier("exampel-blur", "digits")
    images, labels, ids = load_images("example-images")
    defense = load_defense(
        "example-blur", "example-images", classifier="example-judge", size=1
    ).bind(ids)
    assert (defense(images).argmax(1) == labels).float().mean() > 0.9
    listed = answer("models list --json")
    assert "example-blur" in listed["purifiers"]
    assert "example-judge" in listed["classifiers"]
    assert "example-pgd" in listed["attacks"]
    found = answer(
        "measure example-brightness -d example-blur --dataset example-images -n 2 --json"
    )
    assert len(found["settings"]["metric_code"]) == 64
    again = answer("attack -a example-pgd --dataset digits -d none -n 2 --steps 1 --json")
    assert len(again["settings"]["attack_code"]) == 64
    assert "example-cr" in STUDIES
