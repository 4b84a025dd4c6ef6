"""Others' robust classifiers, joint models and conditional generators: files of their layout."""

import os
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advpure import load_classifier
from advpure.analysis.generation.images import load_generator
from advpure.base.errors import BadInput
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.files import convert
from advpure.checkpoints.proof import recipe_weights
from advpure.checkpoints.robustness import read_robustness
from advpure.checkpoints.vision import VisionConfig
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_booster

pytest.importorskip("torchvision")
OFFICIAL = (
    "madry-resnet50-l2-3",
    "microsoft-resnet50-l2-3",
    "microsoft-wide-resnet50-2-l2-3",
    "golan-joint-resnet50",
    "golan-joint-wide-resnet50-2",
)
SMALL = VisionConfig(library="torchvision", model="shufflenet_v2_x0_5", classes=1000)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A joint model's entry with a network of a million parameters, registered."""
    return _registered(replace(CHECKPOINTS.get(OFFICIAL[3]), name="small", config=SMALL),
                       monkeypatch)  # fmt: skip


def _registered(entry: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(CHECKPOINTS, "_entries", dict(CHECKPOINTS._entries))
    CHECKPOINTS.register(entry.name, entry)
    return entry


def official(entry: Checkpoint) -> dict[str, Tensor]:
    return recipe_weights(entry.skeleton()[1].official(), 0)


def wrapped(state: dict[str, Tensor], parallel: str = "module.") -> "OrderedDict[str, Tensor]":
    """The state dictionary of the library's module: normaliser, network, attack around both."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    named = {"normalizer.new_mean": mean, "normalizer.new_std": std}
    named |= {f"model.{name}": value for name, value in state.items()}
    named |= {"attacker.normalize.new_mean": mean, "attacker.normalize.new_std": std}
    named |= {f"attacker.model.{name}": value for name, value in state.items()}
    return OrderedDict((f"{parallel}{name}", value) for name, value in named.items())


class _Asks:
    """What pickles as a call of something, as functions of dill's do."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        return self.call, self.arguments, {"code": b"\x00"}


@pytest.fixture
def dill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function of dill's module, which is not installed when the file is read."""
    module, made = types.ModuleType("dill._dill"), types.FunctionType
    function = made((lambda *given: None).__code__, {}, "_create_function")
    function.__module__, function.__qualname__ = "dill._dill", "_create_function"
    module._create_function = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dill", types.ModuleType("dill"))
    monkeypatch.setitem(sys.modules, "dill._dill", module)
    return function


def test_the_five_are_read_by_their_layout() -> None:
    for name in OFFICIAL:
        entry = CHECKPOINTS.get(name)
        assert entry.reader == "robustness"
        assert len(entry.skeleton()[1].official()) == entry.tensors


@pytest.mark.parametrize("zipped", [True, False])
def test_the_network_comes_out_of_the_attack_and_no_code_runs(
    zipped: bool,
    entry: Checkpoint,
    dill: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, path = official(entry), tmp_path / "imagenet_l2_3_0.pt"
    content = {
        "model": wrapped(state),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
        "schedule": {"lr_lambdas": [_Asks(dill, 1)], "last_epoch": 3},
        "epoch": 4,
        "args": _Asks(os.mkdir, str(tmp_path / "ran")),
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for module in ("dill", "dill._dill"):
        monkeypatch.delitem(sys.modules, module)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = load_classifier("imagenet64", f"small:{path}")
    network, _ = replace(entry, build=entry.build).skeleton()
    network = network.to_empty(device="cpu").eval()
    network.load_state_dict(state)
    network = network.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        assert torch.equal(model(images), network((images - mean) / std))
    assert not (tmp_path / "ran").exists()
    to = tmp_path / "converted.safetensors"
    assert convert(entry, path, to) == len(state)
    assert torch.equal(load_classifier("imagenet64", to)(images), model(images))


@pytest.mark.parametrize("how", ["bare", "parallel", "state_dict", "unwrapped-parallel", "half"])
def test_joint_models_of_any_wrapping_are_read(how: str, entry: Checkpoint, tmp_path: Path) -> None:
    """The layout of the authors' two files is not published: each that their tools write goes."""
    state, path = official(entry), tmp_path / "joint.pt"
    content: dict[str, Any] = {
        "bare": dict(state),
        "parallel": {f"module.{name}": value for name, value in state.items()},
        "state_dict": {"state_dict": wrapped(state), "epoch": 1},
        "unwrapped-parallel": {"model": wrapped(state, parallel="")},
        "half": {"model": wrapped({k: v.half() if v.is_floating_point() else v
                                   for k, v in state.items()})},
    }[how]  # fmt: skip
    torch.save(content, path)
    read = load_classifier("imagenet64", f"small:{path}").network
    assert isinstance(read, nn.Module)
    near = 2e-3 if how == "half" else 0.0
    for name, value in read.state_dict().items():
        assert torch.allclose(value.double(), state[name].double(), rtol=near, atol=0.1 * near)


def test_a_joint_model_of_others_boosts_and_takes_its_level_as_an_option(
    entry: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "joint.pt"
    torch.save({"model": wrapped(official(entry))}, path)
    given = {"steps": 1, "step_size": 0.1}
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with pytest.raises(BadInput, match="a model without l0"):
        load_booster(f"small:{path}", "imagenet64", given)
    booster = load_booster(f"small:{path}", "imagenet64", {**given, "l0": 2.5, "stop": "false"})
    assert booster.settings["l0"] == 2.5
    moved = booster.boost(images, torch.tensor([3, 999])).images - images
    assert 0 < float(moved.flatten(1).norm(dim=1).max()) <= 0.1 + 1e-6
    with pytest.raises(BadInput, match="class 1000 is outside the 1000 classes"):
        booster.boost(images, torch.tensor([3, 1000]))
    with pytest.raises(BadInput, match=r"l0 2\.5 means nothing without loss reference"):
        load_booster(f"small:{path}", "imagenet64", {**given, "l0": 2.5, "loss": "ce"})


def _without(state: "OrderedDict[str, Tensor]", start: str) -> "OrderedDict[str, Tensor]":
    return OrderedDict((k, v) for k, v in state.items() if not k.startswith(start))


SPOILT: dict[str, tuple[Callable[["OrderedDict[str, Tensor]"], Any], str]] = {
    "no network": (lambda s: _without(s, "module.model."), "holds an attack without the network"),
    "another normaliser": (
        lambda s: {**s, "module.normalizer.new_mean": torch.zeros(3, 1, 1)},
        r"new_mean of .* is \[0.0, 0.0, 0.0\], not \[0.485, 0.456, 0.406\]",
    ),
    "another copy": (
        lambda s: {**s, "module.attacker.model.fc.bias": torch.zeros(1000)},
        "'attacker.model.fc.bias' of .* is not that of the network beside it",
    ),
    "a tensor short": (
        lambda s: {k: v for k, v in s.items() if not k.endswith("model.fc.bias")},
        "'fc.bias' of small is missing from the file",
    ),
    "a tensor more": (lambda s: {**s, "module.extra": torch.zeros(1)}, "'extra' is unknown to"),
    "other classes": (
        lambda s: {k: v[:10] if ".fc." in k else v for k, v in s.items()},
        r"has shape \(10, 1024\), not \(1000, 1024\)",
    ),
    "no tensors": (lambda s: _Asks(os.getcwd), "holds no named tensors"),
    "a function": (
        lambda s: {**s, "fc": _Asks(os.getcwd)},
        "entry 'fc' of .* is no named tensor",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_other_layouts_are_refused_in_one_line(
    fault: str, entry: Checkpoint, tmp_path: Path
) -> None:
    path, (spoil, said) = tmp_path / "x.pt", SPOILT[fault]
    spoilt = spoil(wrapped(official(entry)))
    torch.save({"model": spoilt} if isinstance(spoilt, dict) else spoilt, path)
    with pytest.raises(BadInput, match=said) as caught:
        load_classifier("imagenet64", f"small:{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused_in_one_line(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": {"w": torch.ones(300)}}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    assert torch.equal(read_robustness(path).tensors["w"], torch.ones(300))
    spoilt = [whole[:-700], whole[: len(whole) // 2], b"", b"\x80\x02K\x01.", b"no file" * 40]
    if not zipped:  # a storage that states another length
        spoilt.append(whole[:-1208] + (400).to_bytes(8, "little") + whole[-1200:])
    for content in spoilt:
        path.write_bytes(content)
        with pytest.raises(BadInput, match="is damaged or no PyTorch file") as caught:
            read_robustness(path)
        assert "\n" not in str(caught.value)
    if zipped:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", b"\x80\x02}.")
        with pytest.raises(BadInput, match="is damaged"):
            read_robustness(path)


@pytest.mark.parametrize("name", ["cm-imagenet64-cd-lpips", "diffusers-cm-imagenet64-ct"])
def test_a_conditional_generator_of_others_makes_images_of_classes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    whole = CHECKPOINTS.get(name)
    change = {"channels": (32, 32), "layers": 1, "attention": (1,), "head_channels": 32}
    small = replace(whole, name="small-cm", config=replace(whole.config, **change))
    _registered(small, monkeypatch)
    path = tmp_path / "cm.pt"
    torch.save(official(small), path)
    xi, made = RandomnessConfig(0), {}
    for labels in ("uniform", 3, "none"):
        weights = f"small-cm:{path}"
        generator = load_generator("cm", "imagenet64", labels=labels, weights=weights, tile=1)
        made[labels] = generator.make([0], 1, xi)
        assert made[labels].images.shape == (1, 3, 64, 64)
    drawn = made["uniform"].labels
    assert drawn is not None
    assert 0 <= int(drawn) < 1000
    assert made["none"].labels is None
    assert not torch.equal(made[3].images, made["uniform"].images)
    with pytest.raises(BadInput, match="label 1000 is no class"):
        load_generator("cm", "imagenet64", labels=1000, weights=f"small-cm:{path}")
