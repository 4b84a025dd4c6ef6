"""Official files: every format comes back exactly, and everything doubtful is one clear line."""

import contextlib
import json
import os
import pickle
import struct
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from advpure import load_classifier, load_defense, load_denoiser
from advpure.base.errors import BadInput
from advpure.checkpoints import load_checkpoint, split_reference
from advpure.checkpoints import loader as loading
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.files import convert, converted, digest, read_weights
from advpure.checkpoints.flax import Malformed, decode, load_flax
from advpure.checkpoints.pickles import load_edm_pickle
from advpure.checkpoints.proof import recipe_weights
from advpure.checkpoints.song import SongUNet
from advpure.checkpoints.verify import verify
from advpure.core.denoisers import Denoiser
from advpure.core.randomness import RandomnessConfig

RESNET = CHECKPOINTS.get("resnet56-cifar10")
SMALL = {"image_size": 8, "width": 8, "multiples": (1, 2), "blocks": 1, "attention": (4,)}


def small(name: str, new: str) -> Checkpoint:
    """An entry of the catalogue with a network of a few thousand parameters."""
    entry = CHECKPOINTS.get(name)
    return replace(entry, name=new, config=replace(entry.config, **SMALL), checksum=None)


def official(entry: Checkpoint, seed: int = 0) -> dict[str, Tensor]:
    return recipe_weights(entry.skeleton()[1].official(), seed)


@pytest.fixture
def resnet_file(tmp_path: Path) -> Path:
    """A file in the layout of the published ResNet-56, with other numbers."""
    path = tmp_path / "resnet56.th"
    state = {f"module.{name}": value for name, value in official(RESNET).items()}
    torch.save({"best_prec1": 93.62, "state_dict": state}, path)
    return path


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Checkpoint], None]:
    def add(entry: Checkpoint) -> None:
        entries = dict(CHECKPOINTS._entries)
        monkeypatch.setattr(CHECKPOINTS, "_entries", entries)
        CHECKPOINTS.register(entry.name, entry)

    return add


# Readable files


def test_prefixes_go_and_counters_come(resnet_file: Path) -> None:
    module = load_checkpoint("resnet56-cifar10", resnet_file, any_checksum=True)
    state = official(RESNET)
    network = module.network
    assert isinstance(network, nn.Module)
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 0
        else:
            assert torch.equal(value, state[name])
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    filters = [each.weight for each in network.modules() if isinstance(each, nn.Conv2d)]
    assert len(filters) == 55
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in filters)


@pytest.mark.slow
def test_a_converted_file_names_its_entry(resnet_file: Path, tmp_path: Path) -> None:
    to = tmp_path / "converted.safetensors"
    assert convert(RESNET, resnet_file, to, any_checksum=True) == 277
    assert converted(to) == ("resnet56-cifar10", f"sha256:{digest(resnet_file, 'sha256')}")
    assert split_reference(to) == (RESNET, to)
    state = official(RESNET)
    assert all(torch.equal(value, state[name]) for name, value in load_file(to).items())
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    direct = load_checkpoint("resnet56-cifar10", resnet_file, any_checksum=True)(images)
    assert torch.equal(load_classifier(weights=to)(images), direct)
    assert torch.equal(load_classifier(weights=f"resnet56-cifar10:{to}")(images), direct)
    defense = load_defense("none", classifier=to)
    assert torch.equal(defense(images), direct)
    identity = defense.purifier.settings["classifier"]
    assert identity == {"name": "resnet56-cifar10", "sha256": digest(to, "sha256")}


def test_a_denoiser_is_used_by_name_and_file(
    tmp_path: Path, registered: Callable[[Checkpoint], None]
) -> None:
    entry = small("edm-cifar10-uncond-vp", "small-edm")
    registered(entry)
    path = tmp_path / "small.safetensors"
    save_file(official(entry), path)
    denoiser = load_denoiser(f"small-edm:{path}")
    assert isinstance(denoiser, Denoiser)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert denoiser(x, 0.5).shape == x.shape
    defense = load_defense(
        "ddpm",
        t=3,
        xi=RandomnessConfig(0),
        weights=f"small-edm:{path}",
        classifier=nn.Flatten(),
    )
    assert defense.at(ids=torch.arange(2))(x.sigmoid()).shape == (2, 192)
    with pytest.raises(BadInput, match="is no classifier"):
        load_classifier(weights=f"small-edm:{path}")


def test_labels_are_for_conditional_networks(
    tmp_path: Path, registered: Callable[[Checkpoint], None]
) -> None:
    entry = small("edm-cifar10-cond-vp", "small-cond")
    registered(entry)
    path = tmp_path / "small.safetensors"
    save_file(official(entry), path)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    answers = [load_checkpoint("small-cond", path, label=label)(x, 0.5) for label in (None, 0, 9)]
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])
    with pytest.raises(BadInput, match="label 10 of small-cond is not below 10"):
        load_checkpoint("small-cond", path, label=10)
    with pytest.raises(BadInput, match="means nothing"):
        load_checkpoint("resnet56-cifar10", path, label=0)


@pytest.mark.slow
def test_old_attention_names_of_the_hub_are_understood() -> None:
    pytest.importorskip("diffusers")
    entry = CHECKPOINTS.get("google-ddpm-cifar10")
    shapes = entry.skeleton()[1].official()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name in shapes:
        aged = name
        for new, legacy in old.items():
            aged = aged.replace(f".{new}.", f".{legacy}.")
        renamed[aged] = torch.zeros(1)
    from advpure.checkpoints.files import rename

    assert set(renamed) != set(shapes)
    assert set(rename(entry, renamed)) == set(shapes)


def test_score_sde_averages_replace_the_weights(
    tmp_path: Path, registered: Callable[[Checkpoint], None]
) -> None:
    entry = small("scoresde-cifar10-ddpmpp", "small-score")
    registered(entry)
    current, average = official(entry, 1), official(entry, 2)
    names = [name for name in current if name != "sigmas"]
    # The official order is that of the model's parameters, which is also the file's.
    model = {"module.sigmas": current["sigmas"]}
    model |= {f"module.{name}": current[name] for name in names}
    shadow = [average[name] for name in names]
    path = tmp_path / "checkpoint_8.pth"
    content = {
        "optimizer": {"state": {}, "param_groups": [{"lr": 2e-4}]},
        "model": model,
        "ema": {"decay": 0.9999, "num_updates": 7, "shadow_params": shadow},
        "step": 7,
    }
    torch.save(content, path)
    state = read_weights(entry, path).tensors
    assert all(torch.equal(state[name], average[name]) for name in names)
    network = load_checkpoint("small-score", path).network
    assert isinstance(network, SongUNet)
    assert torch.equal(network.embed0.weight, average["all_modules.0.weight"])
    torch.save({**content, "ema": {"shadow_params": shadow[:-1]}}, path)
    with pytest.raises(BadInput, match=rf"averages {len(names) - 1} of {len(names)} parameters"):
        load_checkpoint("small-score", path)
    torch.save({**content, "ema": {"shadow_params": [shadow[-1], *shadow[1:]]}}, path)
    with pytest.raises(BadInput, match="has another shape"):
        load_checkpoint("small-score", path)
    torch.save({"model": model}, path)
    with pytest.raises(BadInput, match="has no 'model' and 'ema'"):
        load_checkpoint("small-score", path)


# flax

FLAX = bytes.fromhex(
    # Written by flax 0.10-line serialization.to_bytes from {step: 7, lr: float32 0.25,
    # params_ema: {Dense_0: {kernel: 0..5 as [2, 3], bias: bfloat16 [1.5, -2]}}, z: 1-2j, none}.
    "85a47374657007a26c72d8039390a7666c6f61743332c4040000803eaa706172616d735f656d6181a744656e73655f"
    "3082a66b65726e656cc7260193920203a7666c6f61743332c418000000000000803f00000040000040400000804000"
    "00a040a462696173c71201939102a862666c6f61743136c404c03f00c0a17ac7130292cb3ff0000000000000cbc000"
    "000000000000a46e6f6e65c0"
)
CHUNKED = bytes.fromhex(
    # The same writer with chunks of 8 bytes, [2, 3] of float32.
    "81aa706172616d735f656d6181a17783b95f5f6d73677061636b5f6368756e6b65645f61727261795f5fc3a5736861"
    "706582a13002a13103a66368756e6b7383a130c71501939102a7666c6f61743332c408000000000000803fa131c715"
    "01939102a7666c6f61743332c4080000004000004040a132c71501939102a7666c6f61743332c408000080400000a0"
    "40"
)


def test_bytes_that_flax_wrote(tmp_path: Path) -> None:
    content = decode(FLAX)
    assert (content["step"], content["lr"], content["none"]) == (7, 0.25, None)
    assert content["z"] == 1 - 2j
    path = tmp_path / "checkpoint_80"
    path.write_bytes(FLAX)
    state = load_flax(path)
    assert set(state) == {"Dense_0.kernel", "Dense_0.bias"}
    assert torch.equal(state["Dense_0.kernel"], torch.arange(6.0).reshape(2, 3))
    assert state["Dense_0.bias"].dtype == torch.bfloat16
    assert state["Dense_0.bias"].tolist() == [1.5, -2.0]
    path.write_bytes(CHUNKED)
    assert torch.equal(load_flax(path)["w"], torch.arange(6.0).reshape(2, 3))
    with pytest.raises(BadInput, match="has no 'params'"):
        load_flax(path, "params")


@pytest.mark.parametrize("keep", range(0, len(FLAX), 7))
def test_flax_cut_short_anywhere(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "checkpoint_80"
    path.write_bytes(FLAX[:keep])
    with pytest.raises(BadInput, match="is damaged or no flax checkpoint"):
        load_flax(path)


def extension(kind: int, inner: bytes) -> bytes:
    return b"\xc7" + bytes([len(inner), kind]) + inner


def array(shape: list[int], kind: str, content: bytes) -> bytes:
    """Pack an array as extension type 1."""
    sides = bytes([0x90 + len(shape), *shape])
    name = bytes([0xA0 + len(kind)]) + kind.encode()
    inner = b"\x93" + sides + name + b"\xc4" + bytes([len(content)]) + content
    return extension(1, inner)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xd4\x05\x00", "extension type 5 is not known"),
        (extension(1, b"\xd4\x01\x00"), "is not (shape, type, bytes)"),
        (b"\xd4\xff\x00", ""),
        (b"\xc1", ""),
        (b"\x01\x02", "extra data"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        # Nested lists that each claim to be as long as the file.
        (b"\xdd\x00\x00\xff\xff" * 500 + b"\x01" * 2**16, "exceeds max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\xc9\xff\xff\xff\xff\x01", "exceeds max_ext_len"),
        (b"\xc6\xff\xff\xff\xff", ""),
        (b"\xa1\xff", "can't decode byte"),
        (b"\x81\x90\x01", "is not allowed for map key"),
        (b"\x81\x01\x01", "is not allowed for map key"),
        (array([2], "float32", b"\0" * 4), "size of its shape"),
        (array([1], "float32", b"\0" * 5), "size of its shape"),
        (array([1], "bfloat16", b"\0" * 3), "must be a multiple of element size"),
        (array([1], "object", b"\0" * 8), "'object' is not known"),
        (array([1], "O", b"\0" * 8), "'O' is not known"),
        (b"\xd4\x01\x00", "is not (shape, type, bytes)"),
    ],
)
def test_hostile_msgpack_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as error:
        decode(content)
    assert reason in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("depth", [80, 900])
def test_a_deep_tree_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "checkpoint_80"
    path.write_bytes(b"\x81\xaaparams_ema" + b"\x81\xa1a" * depth + b"\x01")
    with pytest.raises(BadInput, match="nested deeper than"):
        load_flax(path)


def test_a_flax_checkpoint_becomes_a_network(
    tmp_path: Path, registered: Callable[[Checkpoint], None]
) -> None:
    entry = small("jcm-cifar10-cd-lpips", "small-jcm")
    registered(entry)
    state = official(entry)
    tree: dict[str, Any] = {}
    for name, value in state.items():
        *folders, leaf = name.split(".")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        inner = msgpack.packb((list(value.shape), "float32", value.numpy().tobytes()))
        place[leaf] = msgpack.ExtType(1, inner)
    path = tmp_path / "checkpoint_80"
    path.write_bytes(msgpack.packb({"step": 1, "params_ema": tree}))
    to = tmp_path / "out.safetensors"
    convert(entry, path, to)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    boundary = load_denoiser(f"small-jcm:{path}")
    assert torch.equal(boundary(x, 0.002), x)  # c_skip = 1, c_out = 0 at the smallest level
    assert torch.equal(boundary(x, 0.5), load_denoiser(to)(x, 0.5))


# EDM


@pytest.fixture
def edm_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A maker of pickles in EDM's persistence format, with source that must not run."""
    source = f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()"
    persistence = types.ModuleType("torch_utils.persistence")

    def rebuild(meta: dict[str, Any]) -> None:
        raise AssertionError("the official loader must not be called")

    rebuild.__module__, rebuild.__qualname__ = persistence.__name__, "_reconstruct_persistent_obj"
    rebuild.__name__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = rebuild  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, persistence.__name__, persistence)

    class Persistent:
        def __init__(self, state: dict[str, Any]) -> None:
            self.state = state

        def __reduce__(self) -> tuple[Any, ...]:
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": "X"}
            return rebuild, ({**meta, "state": self.state},)

    def make(state: dict[str, Tensor], **extra: Any) -> Path:
        tree: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
        for name, value in state.items():
            *folders, leaf = name.split(".")
            place = tree
            for folder in folders:
                inner = {"_parameters": {}, "_buffers": {}, "_modules": {}, "training": False}
                place = place["_modules"].setdefault(folder, inner)
            constant = leaf in ("freqs", "resample_filter")
            group = "_buffers" if constant else "_parameters"
            place[group][leaf] = value if constant else nn.Parameter(value, requires_grad=False)

        def wrap(place: dict[str, Any]) -> Persistent:
            inner = {name: wrap(child) for name, child in place["_modules"].items()}
            return Persistent({**place, "_modules": inner, "skip_scale": 0.5**0.5})

        path = tmp_path / "edm.pkl"
        path.write_bytes(pickle.dumps({"ema": wrap(tree), **extra}))
        return path

    return make


@pytest.mark.parametrize("name", ["edm-cifar10-uncond-vp", "edm-cifar10-uncond-ve"])
def test_an_edm_pickle_converts_without_running_its_source(
    name: str,
    tmp_path: Path,
    edm_pickle: Callable[..., Path],
    registered: Callable[[Checkpoint], None],
) -> None:
    entry = small(name, "small-edm")
    registered(entry)
    state = official(entry)
    path = edm_pickle(state)
    read = load_edm_pickle(path)
    assert set(read) == set(state)
    assert all(torch.equal(value, state[key]) for key, value in read.items())
    to = tmp_path / "out.safetensors"
    assert convert(entry, path, to) == len(state)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_denoiser(to)(x, 0.5), load_denoiser(f"small-edm:{path}")(x, 0.5))
    assert not (tmp_path / "ran").exists()


class _Evil:
    """Runs a command when it is unpickled in the ordinary way."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_an_evil_edm_pickle_is_refused(tmp_path: Path, edm_pickle: Callable[..., Path]) -> None:
    marker = tmp_path / "ran"
    path = edm_pickle({"model.a.weight": torch.zeros(2)}, loss_fn=_Evil(marker))
    with pytest.raises(BadInput, match=r"asks for (posix|nt)\.system, which is no tensor"):
        load_edm_pickle(path)
    assert not marker.exists()
    for content in (b"cbuiltins\neval\n(S'1'\ntR.", b"cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="which is no tensor or container"):
            load_edm_pickle(path)


def test_damaged_edm_pickles(tmp_path: Path, edm_pickle: Callable[..., Path]) -> None:
    path = edm_pickle({"model.a.weight": torch.zeros(2)})
    whole = path.read_bytes()
    for keep in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(BadInput, match="is damaged or no EDM pickle"):
            load_edm_pickle(path)
    path.write_bytes(pickle.dumps({"G_ema": 1}))
    with pytest.raises(BadInput, match="has no network under 'ema'"):
        load_edm_pickle(path)
    with pytest.raises(BadInput, match="is missing"):
        load_edm_pickle(tmp_path / "none.pkl")


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    import io

    memory = io.BytesIO()
    torch.save(torch.zeros(2).storage(), memory, _use_new_zipfile_serialization=False)

    class Storage:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch.storage._load_from_bytes, (memory.getvalue(),)

    class Beyond:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, (1000,), (1,), False, {})

    path = tmp_path / "edm.pkl"
    path.write_bytes(pickle.dumps({"ema": Beyond()}))
    with pytest.raises(BadInput, match="numbers outside a tensor's storage"):
        load_edm_pickle(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_random_damage_is_refused_or_harmless(
    tmp_path: Path, edm_pickle: Callable[..., Path]
) -> None:
    generator = torch.Generator().manual_seed(0)
    path = edm_pickle({"model.a.weight": torch.ones(2), "model.map_noise.freqs": torch.ones(2)})
    edm = path.read_bytes()
    refused = 0
    for k in range(300):
        whole, load = ((edm, load_edm_pickle), (FLAX, load_flax))[k % 2]
        places = torch.randint(len(whole), (3,), generator=generator).tolist()
        changed = bytearray(whole)
        for place in places:
            changed[place] = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(changed)
        with contextlib.suppress(BadInput):
            load(path)
            continue
        refused += 1
    assert refused > 100
    assert not (tmp_path / "ran").exists()


# Wrong files


def test_the_published_checksum_is_required(resnet_file: Path) -> None:
    line = (
        rf"weights file {resnet_file} has not the sha256 sum of resnet56-cifar10; obtain it again"
    )
    with pytest.raises(BadInput, match=line):
        load_checkpoint("resnet56-cifar10", resnet_file)
    with pytest.raises(BadInput, match=line):
        load_classifier(weights=f"resnet56-cifar10:{resnet_file}")
    found = verify(RESNET, resnet_file, case=None)
    assert (found.checksum, found.tensors, found.file_parameters) == (False, 277, 853_018)
    assert not found.keys
    assert not found.passed


@pytest.mark.parametrize("keep", [0, 5, 1000, 0.5, -1])
def test_truncated_and_half_written_files(resnet_file: Path, keep: float) -> None:
    whole = resnet_file.read_bytes()
    size = int(keep * len(whole)) if 0 < keep < 1 else int(keep)
    resnet_file.write_bytes(whole[:size])
    with pytest.raises(BadInput, match="is damaged") as error:
        load_checkpoint("resnet56-cifar10", resnet_file, any_checksum=True)
    assert "\n" not in str(error.value)
    resnet_file.write_bytes(whole[: len(whole) // 2] + b"\0" * (len(whole) - len(whole) // 2))
    with pytest.raises(BadInput, match="is damaged"):
        load_checkpoint("resnet56-cifar10", resnet_file, any_checksum=True)


def test_the_file_of_another_network(resnet_file: Path) -> None:
    with pytest.raises(BadInput, match="is missing from the file") as error:
        load_checkpoint("robustbench-standard", resnet_file)
    assert str(error.value).count("\n") == 0
    assert "more differ" in str(error.value)


def test_a_renamed_file_is_what_it_contains(resnet_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    resnet_file.rename(path)
    assert load_checkpoint("resnet56-cifar10", path, any_checksum=True)
    with pytest.raises(BadInput, match="is damaged or no flax checkpoint"):
        load_checkpoint("jcm-cifar10-edm", path)
    with pytest.raises(BadInput, match="is damaged or no EDM pickle"):
        load_checkpoint("edm-cifar10-uncond-vp", path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_malicious_pytorch_file_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pt"
    for save in (
        lambda: torch.save({"state_dict": _Evil(marker)}, path),
        lambda: path.write_bytes(pickle.dumps(_Evil(marker))),
    ):
        save()
        for name in ("resnet56-cifar10", "robustbench-standard", "scoresde-cifar10-ddpmpp"):
            with pytest.raises(BadInput, match="would run code when loaded"):
                load_checkpoint(name, path, any_checksum=True)
    assert not marker.exists()


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    state = official(RESNET)
    state["linear.bias"][3] = float("nan")
    path = tmp_path / "resnet56.th"
    torch.save(state, path)
    with pytest.raises(BadInput, match=r"'linear.bias' of .* is not finite"):
        load_checkpoint("resnet56-cifar10", path, any_checksum=True)


def test_converting_is_all_or_nothing(resnet_file: Path, tmp_path: Path) -> None:
    to = tmp_path / "out.safetensors"
    to.write_text("precious")
    for refuse in (
        lambda: convert(RESNET, resnet_file, to),
        lambda: convert(CHECKPOINTS.get("robustbench-standard"), resnet_file, to),
        lambda: convert(RESNET, tmp_path / "absent", to, any_checksum=True),
    ):
        with pytest.raises(BadInput):
            refuse()
    assert to.read_text() == "precious"
    with pytest.raises(BadInput, match=r"write --to out\.safetensors"):
        convert(RESNET, resnet_file, tmp_path / "out.pt", any_checksum=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.safetensors", "resnet56.th"]


def test_a_foreign_header_is_no_conversion(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for header in ({}, {"advpure-checkpoint": "no json"}, {"advpure-checkpoint": "[]"}):
        save_file({"a": torch.zeros(1)}, path, header or None)
        assert converted(path) is None
        assert split_reference(path) is None
    unknown = {"advpure-checkpoint": json.dumps({"entry": "nobody", "original": "sha256:0"})}
    save_file({"a": torch.zeros(1)}, path, unknown)
    assert split_reference(path) is None
    path.write_bytes(struct.pack("<Q", 10**9) + b"{")
    assert converted(path) is None


def test_names_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"are not on the model hub; obtain https://.*NAME|:FILE"):
        load_checkpoint("pesser-ddpm-cifar10")
    with pytest.raises(BadInput, match="did you mean pesser-ddpm-cifar10"):
        load_checkpoint("peser-ddpm-cifar10", "x")
    hub = types.ModuleType("huggingface_hub")
    asked: list[tuple[str, str, str]] = []

    def download(repository: str, file: str, repo_type: str) -> str:
        asked.append((repository, file, repo_type))
        return str(tmp_path / file)

    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    entry = CHECKPOINTS.get("google-ddpm-cifar10")
    assert loading.fetch(entry) == tmp_path / "diffusion_pytorch_model.safetensors"
    loading.fetch(CHECKPOINTS.get("jcm-cifar10-purification"))
    loading.fetch(CHECKPOINTS.get("diffusers-cm-imagenet64-ct"))
    assert asked == [
        ("google/ddpm-cifar10-32", "diffusion_pytorch_model.safetensors", "model"),
        ("YiquanLi/Consistency_Purification", "checkpoint_120", "dataset"),
        ("openai/diffusers-ct_imagenet64", "unet/diffusion_pytorch_model.safetensors", "model"),
    ]

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    hub.hf_hub_download = offline  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="cannot be fetched from the hub; obtain hf:google"):
        loading.fetch(entry)
