"""``advpure models``: list, info, verify, convert, and one line for everything that is wrong."""

import json
from pathlib import Path

import pytest
import torch

from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.proof import recipe_weights
from advpure.cli import run

NAME = "resnet56-cifar10"


@pytest.fixture
def resnet_file(tmp_path: Path) -> Path:
    path = tmp_path / "resnet56.th"
    torch.save(recipe_weights(CHECKPOINTS.get(NAME).skeleton()[1].official(), 0), path)
    return path


@pytest.mark.slow
def test_list_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["models"], ["models", "list"]):
        assert run(arguments) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in CHECKPOINTS)
        assert run([*arguments, "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert set(listed["checkpoints"]) == set(CHECKPOINTS)
        assert {"purifiers", "attacks", "metrics", "networks"} <= set(listed)
    for name in CHECKPOINTS:
        entry = CHECKPOINTS.get(name)
        assert run(["models", "info", name]) == 0
        shown = capsys.readouterr().out
        assert entry.source in shown
        assert f"{entry.parameters:,}" in shown
        option = "--weights" if entry.kind == "denoiser" else "--classifier"
        assert f"{option} {name}:FILE" in shown
        assert (f"{option} {name} (from the hub)" in shown) == entry.source.startswith("hf:")
        assert run(["models", "info", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["licence"] == entry.licence


def test_a_name_alone_means_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "digits-edm"]) == 0
    assert "digits-edm" in capsys.readouterr().out
    assert run(["models", NAME]) == 0
    assert "BSD-2-Clause" in capsys.readouterr().out
    assert run(["models", "resnet56-cifar"]) == 2
    assert "did you mean resnet56-cifar10" in capsys.readouterr().err


@pytest.mark.slow
def test_verify_and_convert(
    resnet_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "verify", NAME]) == 0
    assert "resnet56-cifar10 passes" in capsys.readouterr().out
    assert run(["models", "verify", NAME, "--weights", str(resnet_file)]) == 1
    shown = capsys.readouterr().out
    assert "NOT the published one" in shown
    assert "277 tensors, 853,018 parameters" in shown
    assert "FAILS" in shown

    to = tmp_path / "out.safetensors"
    command = ["models", "convert", str(resnet_file), "--as", NAME, "--to", str(to)]
    assert run(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has not the sha256 sum" in error
    assert run([*command, "--any-checksum"]) == 0
    shown = capsys.readouterr().out
    assert "277 tensors" in shown
    assert shown.endswith(f"use it with --classifier {to}\n")
    assert run(["models", "verify", NAME, "--weights", str(to), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert found["keys"] == {"missing": [], "unexpected": [], "misshapen": []}
    assert found["deviation"] < 1e-5


@pytest.mark.slow
def test_verify_reports_every_kind_of_wrong_key(
    resnet_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(resnet_file, weights_only=True)
    del state["bn1.weight"]
    state["bn1.scale"] = torch.ones(16)
    state["linear.bias"] = torch.zeros(100)
    torch.save(state, resnet_file)
    assert run(["models", "verify", NAME, "--weights", str(resnet_file)]) == 1
    shown = capsys.readouterr().out
    assert "missing     1: bn1.weight" in shown
    assert "unexpected  1: bn1.scale" in shown
    assert "misshapen   1: linear.bias: (100,), not (10,)" in shown


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04half", b"\x80\x04cos\nsystem\n."])
def test_bad_files_are_one_line(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    for name in ("robustbench-standard", "edm-cifar10-uncond-vp", "jcm-cifar10-edm"):
        for command in (
            ["verify", name, "--weights", str(path)],
            ["convert", str(path), "--as", name, "--to", str(tmp_path / "out.safetensors")],
        ):
            assert run(["models", *command]) == 2
            error = capsys.readouterr().err
            assert error.startswith("advpure: weights file")
            assert error.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()
