"""Models and data of one's own that answer oddly: a sound result, or one line that names them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import advpure
from advpure import analysis, attacks
from advpure.analysis.perturbed import parse_perturbations
from advpure.attacks.engines.contract import engine
from advpure.attacks.registry import settings_type
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.core.denoisers import FunctionDenoiser
from advpure.core.own import OwnModel

SHAPE = (1, 8, 8)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: (255 * x).byte(), "mine answers with images of dtype uint8; return floating"),
        (lambda x: x + 0j, "mine answers with images of dtype complex64; return floating point"),
        (lambda x: x.to_sparse(), "mine answers with a sparse_coo tensor on cpu; return a dense"),
        (lambda x: x.to("meta"), "mine answers with a strided tensor on meta; return a dense"),
        (lambda x: x / 0, "mine answers with NaN or infinite values; mend it"),
        (lambda x: x.flatten(1) * torch.nan, "mine answers with NaN or infinite values; mend it"),
        (lambda x: x.mul_(0.5), "changes its input in place .* work on a copy"),
    ],
    ids=["bytes", "complex", "sparse", "meta", "infinite", "nan", "in-place"],
)
def test_answers_that_are_no_images(answer: Callable[[Tensor], Tensor], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        OwnModel(answer, "mine").examine(SHAPE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_of_another_precision_are_taken(dtype: torch.dtype) -> None:
    images, labels, _ = advpure.load_images("digits", n=2)
    pair = (lambda x: x.to(dtype), advpure.load_classifier("digits"))
    result = attacks.pgd(pair, images, labels, eps=0.1, steps=1)
    assert result.images.dtype == torch.float32
    assert not result.zero_gradient.any()


def test_images_in_another_range_are_told_of() -> None:
    with pytest.warns(UserWarning, match=r"values from -1 to 1, and what follows .* map them back"):
        advpure.load_defense(lambda x: x.round() * 2 - 1, "digits", gradient="bpda")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, s: None, "answers with a NoneType; let it take both"),
        (lambda x, s: x[:, :, 1:], r"answers with \[2, 1, 7, 8\] of float32 on cpu"),
        (lambda x, s: x.long(), r"answers with \[2, 1, 8, 8\] of int64 on cpu"),
    ],
    ids=["none", "shape", "whole"],
)
def test_answers_that_are_no_estimates(answer: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        FunctionDenoiser(answer)(torch.zeros(2, *SHAPE), 0.5)
    assert FunctionDenoiser(lambda x, s: x.double())(torch.zeros(1), 0.5).dtype == torch.float32


def test_code_that_ends_the_program_does_not_end_it_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import sys\n\ndef leave(x):\n    sys.exit(0)\n")
    assert run(["cr", "--dataset", "digits", "-d", "mine.py:leave", "-n", "2"]) == 2
    told = "advpure: code that was named ends the program (sys.exit); raise an error\n"
    assert capsys.readouterr().err == told
    assert sys.stdout.writable()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"labels": np.array([0, 10**12])}, "label 1000000000000 of .* is above 999999"),
        ({"labels": np.array([0, 2**63], np.uint64)}, "label 9223372036854775808 of .* is above"),
        ({"eps": np.array([0.1, 0.2])}, "eps of .* is not one value; store one"),
        ({"norm": np.array(["linf", "l2"])}, "norm of .* is not one value; store one"),
        ({"images": np.full((2, 1, 8, 8), np.nan)}, "contain NaN or infinite values; remove"),
    ],
    ids=["huge", "unsigned", "eps", "norm", "nan"],
)
def test_files_that_hold_nonsense(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    held = {"images": np.zeros((2, 1, 8, 8)), "labels": np.array([0, 1]), **more}
    np.savez(tmp_path / "x.npz", **held)
    with pytest.raises(BadInput, match=words):
        advpure.load_images(str(tmp_path / "x.npz"))


def test_every_attack_of_foolbox_has_defaults_that_it_takes() -> None:
    from advpure.attacks.engines.foolbox import LIBRARY

    for name in LIBRARY.names():
        kind = settings_type(engine(f"foolbox:{name}"))
        assert kind(eps=0.1, norm=LIBRARY.norms(name)[0]).eps == 0.1, name


def test_an_attack_of_a_library_is_a_perturbation() -> None:
    found = parse_perturbations("attack:foolbox:LinfPGD:0.1,attack:foolbox:FGSM", 0.15)
    assert [(each.attack, each.eps) for each in found] == [
        ("foolbox:LinfPGD", 0.1),
        ("foolbox:FGSM", 0.15),
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--dry-run"], ["--dry-run means nothing to a script", "leave out one"]),
        (["--cluster", "partition=a b;c"], ["partition 'a b;c'", "is not a name", "letters"]),
    ],
)
def test_scripts_that_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: list[str]
) -> None:
    law = tmp_path / "law.yaml"
    law.write_text("verb: cr\nbase: {dataset: digits, n: 2, defense: none}\n")
    script = tmp_path / "job.sh"
    line = ["sweep", str(law), "--out", str(tmp_path / "runs"), "--array", str(script), *more]
    assert run(line) == 2
    told = capsys.readouterr().err
    assert [word for word in words if word not in told] == [], told
    assert not script.exists()


def test_calls_that_say_what_changes_nothing() -> None:
    images, labels, _ = advpure.load_images("digits", n=2)
    with pytest.raises(BadInput, match="model output of 1 classes decides nothing"):
        attacks.pgd(lambda x: x.flatten(1)[:, :1], images, 0 * labels, eps=0.1)
    with pytest.raises(BadInput, match="holds no images and labels"):
        advpure.load_images((images, labels, [7, 7]))
    with pytest.raises(BadInput, match="eps of data set own images is not one value"):
        advpure.load_images({"images": images, "labels": labels, "eps": [0.1, 0.2]})


def test_a_wrong_number_of_arguments_names_the_function() -> None:
    with pytest.raises(TypeError, match="resized_noise_factor"):
        analysis.resized_noise_factor(8, 8, True, 3)  # type: ignore[call-arg]


@pytest.mark.slow
def test_checks_that_are_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = "--dataset digits -n 2 -d none -q --out"
    counted = "certify --sigma 0.25 -N 20 --selection 5"
    assert run(f"{counted} {small} counted".split()) == 0
    for line, words in (
        ("audit counted --only silent-success", "means nothing to this run of certify"),
        ("audit counted --only certificate-alpha --only certificate-alpha", "is given twice"),
        ("audit counted --thorough --passes 9", "passes 9 means nothing to a thorough audit"),
        (
            f"certify --sigma 0.5 -N 20 --selection 5 --counts counted {small} other",
            "counts of counted are of none of these images, noise levels and blocks",
        ),
    ):
        capsys.readouterr()
        assert run(line.split()) == 2, line
        assert words in capsys.readouterr().err, line


def test_a_prediction_takes_an_attack_that_has_no_steps_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "predict --dataset digits -n 2 -d cm --attack square --attack-option queries=4 --dry-run"
    assert run(line.split()) == 0
