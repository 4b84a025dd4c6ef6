"""Files that ask for more than they hold: refused before anything is built or walked."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from advpure.base.budget import MAX_NAMES, MAX_NESTING, MAX_PARAMETERS, MAX_TEXT
from advpure.base.documents import parse_json, parse_toml, read_text
from advpure.base.errors import BadInput
from advpure.checkpoints.files import converted
from advpure.checkpoints.flax import Malformed, decode, load_flax
from advpure.checkpoints.pickles import load_edm_pickle
from advpure.networks import build_network, registry, shapes_of
from advpure.networks.weights import load_network, load_state

# Texts


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 2000 + "]" * 2000,
        "x = " + "{a=" * 2000 + "1" + "}" * 2000,
        "a" + ".a" * 2000 + " = 1",
        "[a" + ".a" * 2000 + "]",
        '"a"' + '."a"' * 2000 + " = 1",
    ],
)
def test_deep_toml_is_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=f"recipe is nested deeper than {MAX_NESTING}"):
        parse_toml(text, "recipe")


def test_deep_json_is_one_line() -> None:
    for text in ("[" * 2000 + "]" * 2000, '{"a":' * 2000 + "1" + "}" * 2000, "[" * 100_000):
        with pytest.raises(BadInput, match="header is nested deeper"):
            parse_json(text, "header")
    assert parse_json('["' + "[" * 2000 + '", "\\"[[' + "[" * 100 + '"]', "h")[1][0] == '"'
    assert parse_toml("x = '" + "[" * 2000 + "'\ny = [" + "0.5, " * 200 + "]", "r")["y"][0] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 9223372036854775808", "a whole number of 64 bits, is too large for 64 bits"),
        ("x = [-9223372036854775809]", "is too large for 64 bits"),
        ("x = " + "9" * 5000, "is not TOML"),
        ("x = 0x" + "f" * 5000, "is too large for 64 bits"),
        ("x = nan", "nan, is not finite"),
        ("[t]\nx = -inf", "-inf, is not finite"),
        ("= =", "is not TOML"),
    ],
)
def test_numbers_of_toml_fit_64_bits(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        parse_toml(text, "recipe")
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("text", ["", "{", "[NaN]", "[1e999]", "1" * 5000, b"\xff"])
def test_json_that_is_none(text: Any) -> None:
    with pytest.raises(BadInput, match=r"is not JSON|is not finite"):
        parse_json(text, "header")


def test_texts_are_small_files(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b" " * (MAX_TEXT + 1))
    with pytest.raises(BadInput, match="has more than 1,048,576 bytes"):
        read_text(path, "recipe")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="is no UTF-8 text"):
        read_text(path, "recipe")
    with pytest.raises(BadInput, match="is a folder"):
        read_text(tmp_path, "recipe")


# Headers that ask for large networks


def foreign(path: Path, config: dict[str, Any], architecture: str = "resnet") -> Path:
    header = {"format": 1, "architecture": architecture, "config": config, "metadata": {}}
    save_file({"w": torch.zeros(2)}, path, {"advpure": json.dumps(header)})
    return path


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("resnet", {"channels": [6000, 6000]}, r"tensor 'enter.weight' is missing from"),
        ("resnet", {"blocks": 10**6}, "blocks 1000000 is not a whole number from 1 to 64"),
        ("resnet", {"channels": [10**9]}, r"channels\[0\] 1000000000 is not a whole number"),
        ("resnet", {"channels": [8] * 10**5}, "channels of 100000 levels make no network"),
        ("resnet", {"classes": 2**70}, "header.*is too large for 64 bits"),
        ("resnet", {"classes": True}, "classes True is not a whole number"),
        ("resnet", {"channels": "88"}, "channels '88' is no list"),
        ("resnet", {"std": [None]}, r"std\[0\] None is not a number"),
        ("unet", {"image_size": 2**16, "patch": 2**16}, "patch 65536 has 4,294,967,296 numbers"),
        ("unet", {"image_size": "x"}, "image size 'x' is not a whole number"),
        ("convnet", {"patch": 64, "image_channels": 100}, "patch 64 has 409,600 numbers"),
    ],
)
def test_headers_that_ask_for_too_much(
    architecture: str,
    config: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*_: object) -> None:
        raise AssertionError("nothing may be built with memory")

    monkeypatch.setattr("advpure.networks.weights.build_network", build)
    shape = {"image_size": 8} if architecture == "unet" else {"classes": 3}
    path = foreign(tmp_path / "a", {"image_channels": 1, **shape, **config}, architecture)
    with pytest.raises(BadInput, match=message):
        load_network(path)


def test_a_network_above_the_budget_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"image_channels": 1, "classes": 2, "channels": [60000, 60000]}
    count = sum(value.numel() for value in shapes_of("resnet", config).values())
    assert count > MAX_PARAMETERS
    with pytest.raises(BadInput, match=r"resnet of 1\d\d,\d{3},\d{3},\d{3} parameters is above"):
        build_network("resnet", config)
    monkeypatch.setattr(registry, "MAX_PARAMETERS", 1000)
    with pytest.raises(BadInput, match="is above the budget of 1,000; lower channels or blocks"):
        build_network("resnet", {**config, "channels": [32]})


def test_deep_headers_are_one_line(tmp_path: Path) -> None:
    deep = "[" * 2000 + "]" * 2000
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"advpure": deep, "advpure-checkpoint": deep})
    with pytest.raises(BadInput, match=r"advpure header of .* is nested deeper"):
        load_network(path)
    assert converted(path) is None
    text = ('{"a":' * 2000 + "1" + "}" * 2000).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    for load in (load_network, load_state):
        with pytest.raises(BadInput, match="is damaged or cut short"):
            load(path)


# PyTorch files


def rewritten(path: Path, change: Callable[[str, bytes], bytes], method: int) -> Path:
    """Store the members of a PyTorch file again, changed and compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    return path


def test_a_file_that_states_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(4)}, path)

    def bloated(name: str, content: bytes) -> bytes:
        return b"\0" * 2**22 if "/data/" in name else content

    def longer(name: str, content: bytes) -> bytes:  # 2**30 numbers instead of 4
        return content.replace(b"K\x04tq", b"J\x00\x00\x00\x40tq", 1)

    rewritten(path, bloated, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**15
    with pytest.raises(BadInput, match="is damaged"):
        load_state(path)
    torch.save({"w": torch.zeros(4)}, path)
    before = path.read_bytes()
    rewritten(path, longer, zipfile.ZIP_STORED)
    assert path.read_bytes() != before
    with pytest.raises(BadInput, match="is damaged"):
        load_state(path)


# Pickles and msgpack


def tower(levels: int, width: int = 2) -> nn.Module:
    """Modules of which each holds the next under several names."""
    module: nn.Module = nn.Identity()
    for _ in range(levels):
        outer = nn.Module()
        outer._modules = {str(k): module for k in range(width)}
        module = outer
    return module


def test_modules_that_hold_each_other_twice_are_not_walked_forever(tmp_path: Path) -> None:
    path = tmp_path / "edm.pkl"
    loop = nn.Module()
    loop._modules = {"inner": loop}
    for network in (tower(60), tower(100, 1), loop, tower(3, 1000)):
        path.write_bytes(pickle.dumps({"ema": network}))
        assert path.stat().st_size < 10**6
        with pytest.raises(BadInput, match=f"names more than {MAX_NAMES:,} modules and tensors"):
            load_edm_pickle(path)
    shared = tower(3)
    shared.register_buffer("b", torch.zeros(1))
    path.write_bytes(pickle.dumps({"ema": shared}))
    assert set(load_edm_pickle(path)) == {"b"}


def extension(kind: int, inner: bytes) -> bytes:
    return b"\xc7" + bytes([len(inner), kind]) + inner


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x91" * 2000 + b"\x01", "StackError"),
        (b"\x81\xa1a" * 2000 + b"\x01", "StackError"),
        # An array whose sides would take long to multiply.
        (extension(1, b"\x93\xdc\x00\x60" + b"\x7f" * 96 + b"\xa1b\xc4\x00"), "has no shape"),
        (extension(3, b"\x93\x91\x00\xa7float32\xc4\x00"), "a number is an array of others"),
        (extension(2, b"\x92\xa1a\xa1b"), "complex number has not two parts"),
        (extension(1, b"\x93\x91\x01\xc4\x01\xff\xc4\x00"), "is not known"),
        (extension(1, b"\x93\x91\x01\x90\xc4\x00"), "is not known"),
        (extension(1, b"\x93\x91\xc3\xa7float32\xc4\x04\0\0\0\0"), "has no shape"),
    ],
)
def test_more_hostile_msgpack(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed) as error:
        decode(content)
    assert reason in str(error.value)
    path = tmp_path / "checkpoint_80"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is damaged or no flax checkpoint"):
        load_flax(path)
