"""Weights are data: what is stored comes back, and everything doubtful is refused."""

import dataclasses
import json
import os
import pickle
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.data import dataset_info
from advpure.models import list_models, model_path
from advpure.networks import build_network
from advpure.networks.registry import Architecture
from advpure.networks.weights import load_network, load_state, save_network, sha256

CONFIG = {"image_channels": 1, "classes": 3, "channels": [8]}


@pytest.fixture
def network() -> nn.Module:
    return build_network("resnet", CONFIG, torch.Generator().manual_seed(0)).eval()


def store(path: Path, network: nn.Module, **changes: Any) -> Path:
    settings = {"architecture": "resnet", "config": CONFIG, "metadata": {"task": "classifier"}}
    save_network(path, network, **{**settings, **changes})
    return path


def test_round_trip_is_exact_up_to_float16(network: nn.Module, tmp_path: Path) -> None:
    path = store(tmp_path / "a.safetensors", network)
    loaded, metadata = load_network(path)
    assert metadata == {"task": "classifier", "architecture": "resnet", "config": CONFIG}
    for name, value in network.state_dict().items():
        stored = loaded.state_dict()[name]
        assert torch.equal(stored, value.half().to(value.dtype))
    assert not loaded.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.parameters())
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_storing_twice_gives_the_same_bytes(network: nn.Module, tmp_path: Path) -> None:
    first = store(tmp_path / "a.safetensors", network)
    second = store(tmp_path / "b.safetensors", load_network(first).network)
    assert sha256(first) == sha256(second)


def test_loading_leaves_the_global_generator_alone(network: nn.Module, tmp_path: Path) -> None:
    path = store(tmp_path / "a.safetensors", network)
    before = torch.get_rng_state()
    load_network(path)
    assert torch.equal(torch.get_rng_state(), before)


class Scaled(nn.Module):
    """A layer, and a constant that no file holds."""

    def __init__(self, config: SimpleNamespace) -> None:
        """Make both."""
        super().__init__()
        self.layer = nn.Linear(config.width, 1)
        self.register_buffer("scale", torch.full((1,), 3.0), persistent=False)


def test_constants_that_no_file_holds_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclasses.dataclass
    class Settings(SimpleNamespace):
        width: int

    known = Registry[Architecture]("architecture")
    known.register("scaled", Architecture(Scaled, Settings), about="of this test")
    monkeypatch.setattr("advpure.networks.registry.ARCHITECTURES", known)
    made = Scaled(Settings(4))
    path = store(tmp_path / "a.safetensors", made, architecture="scaled", config={"width": 4})
    loaded = load_network(path).network
    assert loaded.get_buffer("scale").tolist() == [3.0]
    assert torch.equal(loaded.get_parameter("layer.weight"), made.layer.weight.half().float())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_float16_cannot_hold_are_refused(
    network: nn.Module, tmp_path: Path, value: float
) -> None:
    path = store(tmp_path / "a.safetensors", network)
    before = sha256(path)
    with torch.no_grad():
        next(iter(network.parameters())).view(-1)[0] = value
    with pytest.raises(BadInput, match=r"'enter.weight' is not finite"):
        store(path, network)
    assert sha256(path) == before


def test_missing_file() -> None:
    for function in (load_network, load_state, sha256):
        with pytest.raises(BadInput, match="is missing"):
            function("nowhere.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 40, 200, -1])
def test_truncated_file(network: nn.Module, tmp_path: Path, keep: int) -> None:
    path = store(tmp_path / "a.safetensors", network)
    path.write_bytes(path.read_bytes()[:keep])
    for function in (load_network, load_state):
        with pytest.raises(BadInput, match=r"is damaged|no safetensors"):
            function(path)


@pytest.mark.parametrize("content", [b"hello world", b"PK\x03\x04 no archive", b"\x80\x02junk"])
def test_foreign_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is damaged or no weights file"):
        load_state(path)
    with pytest.raises(BadInput, match="is no safetensors file"):
        load_network(path)


def test_a_huge_header_length_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(BadInput, match="is damaged"):
        load_network(path)


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    assert load_state(path)["w"].tolist() == [0, 0]
    cases: list[tuple[object, str]] = [
        (None, "has no advpure header"),
        ("not json", "advpure header of weights file .* is not JSON"),
        ([], "malformed"),
        ({"format": 1, "architecture": "resnet", "config": 3, "metadata": {}}, "malformed"),
        ({"format": 9, "architecture": "resnet", "config": {}, "metadata": {}}, "format 9"),
        ({"format": 1, "architecture": "resnt", "config": {}, "metadata": {}}, "did you mean"),
        ({"format": 1, "architecture": "resnet", "config": {"a": 1}, "metadata": {}}, "'a' of"),
    ]
    for header, message in cases:
        text = header if isinstance(header, str) else json.dumps(header)
        save_file({"w": torch.zeros(2)}, path, None if header is None else {"advpure": text})
        with pytest.raises(BadInput, match=message):
            load_network(path)


def test_the_first_tensor_that_does_not_fit_is_named(network: nn.Module, tmp_path: Path) -> None:
    wider = store(tmp_path / "w", network, config={**CONFIG, "channels": [16]})
    with pytest.raises(
        BadInput, match=r"enter\.weight.* shape \(8, 1, 3, 3\), not \(16, 1, 3, 3\)"
    ):
        load_network(wider)
    deeper = store(tmp_path / "d", network, config={**CONFIG, "blocks": 2})
    with pytest.raises(BadInput, match=r"stages\.1\.conv1\.weight' is missing from"):
        load_network(deeper)
    big = build_network("resnet", {**CONFIG, "blocks": 2}, torch.Generator().manual_seed(0))
    extra = store(tmp_path / "e", big)
    with pytest.raises(BadInput, match=r"stages\.1\..*is unknown to"):
        load_network(extra)


class RunsCode:
    """A pickle that creates a file when it is loaded without restriction."""

    def __init__(self, witness: Path) -> None:
        """Remember which file."""
        self.witness = witness

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        """Ask the unpickler to run a shell command."""
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch-legacy"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, form: str) -> None:
    witness, path = tmp_path / "ran", tmp_path / "evil.pt"
    content = {"w": torch.zeros(1), "x": RunsCode(witness)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(BadInput, match="would run code when loaded; load it once in a sandbox"):
        load_state(path)
    with pytest.raises(BadInput, match="is no safetensors file"):
        load_network(path)
    assert not witness.exists()
    if form == "pickle":  # the trap is armed: an unrestricted load does run it
        pickle.loads(path.read_bytes())
        assert witness.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_plain_torch_files_load(tmp_path: Path, zipped: bool, wrapped: bool) -> None:
    path = tmp_path / "lin.pth"
    tensors = {"lin0.model.1.weight": torch.arange(4.0)[None, :, None, None]}
    content = {"state_dict": tensors, "epoch": 3} if wrapped else tensors
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(load_state(path)["lin0.model.1.weight"], tensors["lin0.model.1.weight"])


@pytest.mark.parametrize("content", [torch.zeros(2), [1], {}, {"a": 1}, {1: torch.zeros(1)}])
def test_torch_files_without_named_tensors_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(BadInput, match="no named tensor"):
        load_state(path)


def test_values_that_are_not_finite_are_refused_on_loading(tmp_path: Path) -> None:
    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "a.pt")
    save_file({"w": torch.tensor([float("inf")])}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(BadInput, match=r"'w' of .* is not finite"):
            load_state(tmp_path / name)


@pytest.mark.parametrize("name", list_models())
def test_shipped_models_load_and_carry_their_quality(name: str) -> None:
    path = model_path(name)
    _, metadata = load_network(path)
    assert metadata["name"] == name
    assert metadata["quality"]
    size = dataset_info(metadata["dataset"]).splits["test"]
    measured = min(size, 1000)
    counts = [rate["n"] for rate in metadata["quality"]]
    if metadata["task"] == "selector":  # of all images, of those it chooses, and of the others
        assert counts == [measured, counts[1], measured - counts[1]]
        assert 0 < counts[1] < measured
    elif metadata["task"] in ("classifier", "joint"):  # of all clean images, then of the first
        assert counts[0] == size
        assert set(counts[1:]) <= {measured}
    else:
        assert set(counts) == {measured}
    assert path.with_suffix(".md").is_file()


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'digits-classifier'"):
        model_path("digit-classifier")
