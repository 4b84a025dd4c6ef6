"""Values that are one and the same, calls that undo themselves, and what only looks like an answer.

Every case was accepted, ended in a traceback or was told of by a misleading line.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import advpure
from advpure import attacks
from advpure.analysis import certification, expected_compression_rate, predict_from
from advpure.analysis.certification.composed import check_composed
from advpure.analysis.certification.curves import procedure_of
from advpure.analysis.perturbed import parse_perturbations
from advpure.analysis.until import Goal
from advpure.base.errors import BadInput
from advpure.base.text import alike, several
from advpure.boosting.settings import BoostSettings
from advpure.cli import run
from advpure.core.outputs import AsLogits
from advpure.core.steady import calls_of_check
from advpure.purifiers.vpsde import VPSDE
from advpure.sweeps.on_slurm import Slurm
from advpure.sweeps.sweep import parse_sweep

SMALL = "--dataset digits -n 2 -q"
NEAR = "0.1,0.10000000001"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the runs that the lines name."""
    folder = tmp_path_factory.mktemp("runs")
    lines = (
        f"certify {SMALL} -d none --sigma 0.25 -N 20 --selection 5 --out certified",
        f"attack {SMALL} -d none -a pgd --steps 1 --fix-random --out attacked",
        *(f"cr {SMALL} -d none --perturbations 1 --shard {i}/2 --out part{i}" for i in (1, 2)),
        f"cr {SMALL} -d none --perturbations 1 --seeds 3 --shard 2/2 --out other2",
        f"transport {SMALL} -d cm --sigma 0.25 --out moved",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in lines:
            assert run(line.split()) == 0
        (folder / "loop").symlink_to("loop")
    return folder


REFUSED = [
    (f"cr {SMALL} --eps {NEAR}", f"epsilons {NEAR} repeat a value, as float32 images tell none"),
    (f"certify {SMALL} --sigma {NEAR}", f"noise levels {NEAR} repeat a value"),
    (f"certify {SMALL} --radii 0,{NEAR}", "repeat a value"),
    (f"predict {SMALL} --sigma {NEAR}", "repeat a value"),
    (f"survival {SMALL} --eps {NEAR}", "repeat a value"),
    ("compare attacked attacked", "run attacked is given twice; name each once"),
    ("compare attacked ./attacked/../attacked", "is given twice; name each once"),
    ("compare attacked loop", "loop is no run folder"),
    (f"attack {SMALL} --policy majority:1", "is a vote of one, .*; use single, or majority:3"),
    ("certified-accuracy certified -p composed", "name another procedure: this run has none"),
    ("certified-accuracy certified --sigma 0.25", "is for logs, and runs say their own"),
    (f"attack {SMALL} --until width\tnan", 'width nan is not finite; write "width 5"'),
    (f"certify {SMALL} --until width\t5\tat\tnan", 'radius nan .*; write "width 5 at 0.25"'),
    ("merge part1 other2 --to whole", "seeds .* merge the shards of one run alone"),
    ("merge part1 part2 --to attacked", "choose another --to"),
    ("verify attacked --tolerance 1e9", "tolerance .* is not 0 or more and 1 or less"),
    ("sweep x.yaml --cluster x", "option 'x' is not KEY=VALUE; write --cluster NAME=VALUE"),
    (f"generate {SMALL.replace('-n 2', '-n 1000000000000')}", "images are more than 10,000,000"),
    (f"attack {SMALL} --step-size 2/x", "step size '2/x' is not a number; write 0.03 or 8/255"),
    (f"attack {SMALL} -d rrcm --classifier os:x", "os:x does not receive the noise level"),
    (f"attack {SMALL} -d rrcm --outputs labels", "outputs labels means nothing to rrcm"),
    (f"transport {SMALL} --plot a.png --against moved --against ./moved", "is given twice"),
    (f"transport {SMALL} --grid a.png --grid-sigma 0.3", "is not among the noise levels"),
    (
        f"boost {SMALL} -b digits-gaussian-050 --loss ce --steps 2 --curve 2 --weights digits-cm",
        "curve 2 keeps nothing before the end, step 2",
    ),
    (
        f"attack {SMALL} -a square --fix-random --transfer-from 1",
        "transfer of square stops at the border",
    ),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line[:50] for line, _ in REFUSED])
def test_a_line_is_refused(
    runs: Path,
    line: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(runs)
    assert run([part.replace("\t", " ") for part in line.split(" ")]) == 2
    told = capsys.readouterr().err
    with pytest.raises(BadInput, match=words):
        raise BadInput("", told.replace("\n", " "), "")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"cr {SMALL} -d none --perturbations 1 --scheme counter", "scheme counter changes"),
        (f"survival {SMALL} -d none --bisections 0 --steps 1 --seed 3", "seed 3 changes nothing"),
        (f"cr {SMALL} -d none --perturbations 1 --seeds 3", None),  # which keys the perturbations
        (f"attack {SMALL} -d none --fix-random --steps 1 --step-size 2/255 --seed 3", "seed 3 ch"),
    ],
)
def test_keys_of_noise_that_nobody_draws_are_noted(
    line: str,
    words: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(line.split()) == 0
    told = capsys.readouterr().err
    assert told.count("which draws no noise") == (words is not None)
    assert words is None or words in told


class _NoSuper(nn.Module):
    """A module that was never set up."""

    def __init__(self) -> None:
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x


def _certified() -> certification.CertifiedImages:
    return certification.CertifiedImages(
        name="x", ids=np.arange(2), labels=np.array([0, 1]), sigma=0.25,
        predictions=np.array([0, 1]), radii=np.array([0.1, 0.0]),
    )  # fmt: skip


def _calls() -> list[tuple[Callable[[], Any], str]]:
    images, labels, _ = advpure.load_images("digits", n=2)
    defense = advpure.load_defense("cm", "digits", xi=advpure.RandomnessConfig(0))
    given: dict[str, Any] = {"source_xi": advpure.RandomnessConfig(0), "eps": 0.1, "steps": 1}
    other = given | {"source_xi": advpure.RandomnessConfig(1)}
    same = _certified()
    plain = {"procedure": {"name": "fixed", "sigmas": [0.25], "radii": [0.0]}, "defense": {}}
    return [
        (lambda: attacks.transfer("pgd", defense, images, labels, **given), "seed that decides"),
        (lambda: attacks.transfer("square", defense, images, labels, **other), "of square stops"),
        (lambda: attacks.pgd(_NoSuper(), images, labels, eps=0.1), r"does not call super\(\)"),
        (lambda: expected_compression_rate(_NoSuper(), images), r"does not call super\(\)"),
        (lambda: calls_of_check(_NoSuper()), r"does not call super\(\)"),
        (lambda: advpure.load_defense("cm", "digits", classifier=defense.purifier), "a purifier"),
        (lambda: defense(images), "a batch of images has no sample ids"),
        (lambda: advpure.load_images((images.to_sparse(), labels)), "no plain array of numbers"),
        (lambda: advpure.load_images(([[1, 2], [3]], labels)), "no plain array of numbers"),
        (lambda: advpure.Policy("majority", 1), "a vote of one"),
        (lambda: advpure.Policy("eot", 1), "the mean of one"),
        (
            lambda: attacks.pgd(defense, images, labels, eps=0.1, ids=[3, 3]),
            "sample id 3 appears twice",
        ),
        (lambda: advpure.Policy("single", 1, reverse_only=True), "means nothing to single"),
        (lambda: certification.compare(same, same, [0.0]), "is compared with itself"),
        (lambda: certification.compare(same, _certified(), []), "list of radii is empty"),
        (lambda: certification.certified_accuracy(same, -1), "radius -1 is not 0 or more"),
        (lambda: predict_from([]), "the list of runs is empty"),
        (lambda: BoostSettings(eps=99).for_images(64), "eps 99 reaches beyond every image of 64"),
        (lambda: VPSDE(dt=1e-9), "dt 1e-09 takes .* steps, more than 100,000"),
        (lambda: parse_perturbations("uniform:0.1,uniform:0.10000000001", 0.1), "given twice"),
        (
            lambda: AsLogits(lambda x: torch.tensor([0, 7]), "labels", classes=4)(images),
            "class 7 that the model answers with is outside 0 .. 3",
        ),
        (lambda: check_composed(plain, "composed", "pass --core NAME"), "pass --core NAME"),
        (lambda: procedure_of(plain, "composed"), "name another procedure"),
        (lambda: Goal.read("width 5 at"), 'write "width 5"'),
        (
            lambda: parse_sweep(
                {"verb": "cr", "grid": {"eps": [0.1, 0.10000000001]}}, name="x", where="x"
            ),
            "repeats a value",
        ),
    ]


def test_a_call_is_refused() -> None:
    for action, words in _calls():
        with pytest.raises(BadInput, match=words):
            action()


def test_sizes_are_alike_where_float32_is() -> None:
    assert alike(8 / 255, float(np.float32(8 / 255)))
    assert not alike(0.1, 0.1 * (1 + 2.0**-22))
    assert several("8/255, 0.0314", float_of, "epsilons", "") == (8 / 255, 0.0314)
    assert several([2**40, 2**40 + 1], int, "seeds", "") == (2**40, 2**40 + 1)


def float_of(text: str) -> float:
    """Return the number that a text is, a fraction too."""
    first, _, second = text.partition("/")
    return float(first) / float(second or 1)


def test_arrays_that_are_not_read_are_noted(tmp_path: Path) -> None:
    held = {"images": np.zeros((2, 1, 8, 8)), "labels": np.array([0, 1]), "ids": np.array([1, 1])}
    np.savez(tmp_path / "x.npz", **held)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="ids of data set .* is not read; known: images, labels"):
        advpure.load_images(str(tmp_path / "x.npz"))


def test_files_of_tensors_are_called_what_they_were_given_as(tmp_path: Path) -> None:
    torch.save(nn.Identity(), tmp_path / "x.pt")
    with pytest.raises(BadInput, match=r"^data set .*x.pt would run code when loaded; store plain"):
        advpure.load_images(str(tmp_path / "x.pt"))


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a cluster")
def test_a_cluster_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--on slurm finds no cluster"):
        Slurm(tmp_path, 1)
