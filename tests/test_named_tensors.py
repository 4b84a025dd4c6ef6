"""Which tensors of a file are the weights: sets, prefixes, counters, folders, shards, kinds."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from advpure import load_classifier, load_denoiser, load_purifier
from advpure.base.errors import BadInput
from advpure.checkpoints import load_checkpoint
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.choices import Choices, split_choices
from advpure.checkpoints.files import convert, digest, read_weights
from advpure.checkpoints.proof import recipe_weights
from advpure.cli import run
from advpure.loading import load_judge, load_selector
from advpure.networks import build_network
from advpure.networks.named_tensors import AVERAGED, RAW, choose_set
from advpure.networks.weights import load_network, load_state, save_network, sha256

NAME = "robustbench-standard"
RESNET = "resnet56-cifar10"


def weights_of(name: str, seed: int) -> dict[str, Tensor]:
    return recipe_weights(CHECKPOINTS.get(name).skeleton()[1].official(), seed)


@pytest.fixture(scope="module")
def first() -> dict[str, Tensor]:
    """Official weights of ResNet-56, with the counters that today's torch saves."""
    state = weights_of(RESNET, 0)
    norms = [name for name in state if name.endswith("running_var")]
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in norms
    }
    return {**state, **counters}


def bias(module: nn.Module) -> Tensor:
    return module.get_parameter("network.linear.bias")


# Sets and prefixes


KEYS = ("net", "model", "model_state_dict", "ema", "state_dict_ema", "state_dict", "")
PREFIXES = ("module.", "model.", "_orig_mod.", "_orig_mod.module.", "module.model.")


@pytest.mark.parametrize(
    ("key", "prefix"), [*((key, "") for key in KEYS), *(("model", prefix) for prefix in PREFIXES)]
)
def test_classifiers_of_today_s_torch_are_read(
    first: dict[str, Tensor], tmp_path: Path, key: str, prefix: str
) -> None:
    named = {f"{prefix}{name}": value for name, value in first.items()}
    path = tmp_path / "mine.pt"
    torch.save({key: named, "epoch": 3, "best": torch.tensor(0.9)} if key else named, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = load_checkpoint(RESNET, path, any_checksum=True)
    assert torch.equal(bias(module), first["linear.bias"])


def test_a_denoiser_is_read_by_the_same_rule(tmp_path: Path) -> None:
    official = CHECKPOINTS.get("edm-cifar10-uncond-vp")  # whose own names begin with model.
    entry = replace(official, config=replace(official.config, width=8, blocks=1))
    layout = entry.skeleton()[1]
    state = {name: torch.zeros(shape) for name, shape in layout.official().items()}
    assert all(name.startswith("model.") for name in state)
    for prefix in ("", "module.", "_orig_mod.model."):
        named = {f"{prefix}{name}": value for name, value in state.items()}
        save_file(named, tmp_path / "a.safetensors")
        assert set(read_weights(entry, tmp_path / "a.safetensors", layout).tensors) == set(state)


def test_the_wrapper_of_averages_that_torch_has_is_read(
    first: dict[str, Tensor], tmp_path: Path
) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    assert "n_averaged" in averaged.state_dict()
    named = {f"module.{name}": value for name, value in first.items()}
    torch.save({"model_ema": {"n_averaged": torch.tensor(9), **named}}, tmp_path / "a.pt")
    module = load_checkpoint(RESNET, tmp_path / "a.pt", any_checksum=True)
    assert torch.equal(bias(module), first["linear.bias"])


def test_counters_may_be_missing(tmp_path: Path) -> None:
    entry = CHECKPOINTS.get(NAME)
    layout = entry.skeleton()[1]
    state = {name: torch.empty(shape, device="meta") for name, shape in layout.official().items()}
    old = {name: value for name, value in state.items() if "num_batches" not in name}
    from advpure.checkpoints.layout import assemble

    assert len(old) < len(state)
    made = assemble(layout, old, NAME)
    assert made["bn1.num_batches_tracked"].dtype == torch.int64
    assert set(made) == set(assemble(layout, state, NAME))


def test_two_names_for_one_tensor_are_refused(first: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**first, "module.linear.bias": torch.zeros(10)}, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=r"tensor 'linear.bias' of .* is there twice"):
        load_checkpoint(RESNET, tmp_path / "a.pt", any_checksum=True)


# Averaged and raw


@pytest.mark.slow
@pytest.mark.parametrize(("raw", "ema"), [("state_dict", "state_dict_ema"), ("model", "ema")])
def test_averaged_weights_come_before_raw_ones_with_a_note(
    first: dict[str, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    raw: str,
    ema: str,
) -> None:
    averaged = {**first, "linear.bias": torch.full((10,), 3.0)}
    path = tmp_path / "both.pt"
    torch.save({raw: first, ema: averaged}, path)
    with pytest.warns(UserWarning, match=r"the averaged ones are read; both\.pt@raw chooses"):
        module = load_checkpoint(RESNET, path, any_checksum=True)
    assert torch.equal(bias(module), averaged["linear.bias"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for choice, state in (("raw", first), ("ema", averaged)):
            module = load_checkpoint(RESNET, f"{path}@{choice}", any_checksum=True)
            assert torch.equal(bias(module), state["linear.bias"])

    to = tmp_path / "raw.safetensors"
    command = ["models", "convert", f"{path}@raw", "--as", RESNET, "--to", str(to)]
    assert run([*command, "--any-checksum"]) == 0
    assert f"use it with --classifier {to}" in capsys.readouterr().out
    assert torch.equal(load_state(to)["linear.bias"], first["linear.bias"])
    command[2] = str(path)
    assert run([*command, "--any-checksum"]) == 0
    assert capsys.readouterr().err.startswith(f"note: {path} holds averaged weights ({ema})")
    assert torch.equal(load_state(to)["linear.bias"], averaged["linear.bias"])


@pytest.mark.slow
def test_the_record_says_which_weights_were_read(
    first: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "unsigned"
    entry = replace(CHECKPOINTS.get(RESNET), name=name, checksum=None)
    monkeypatch.setattr(CHECKPOINTS, "_entries", dict(CHECKPOINTS._entries))
    CHECKPOINTS.register(name, entry)
    path, one = tmp_path / "both.pt", tmp_path / "one.pt"
    torch.save({"model": first, "ema": first}, path)
    torch.save({"model": first}, one)
    with pytest.raises(BadInput, match=r"one\.pt holds no averaged weights; leave out ema"):
        load_judge("cifar10", f"{name}:{one}@ema")
    told = {}
    for choice in ("", "@raw", "@ema"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told[choice] = load_judge("cifar10", f"{name}:{path}{choice}")[1]
    assert [told[c]["weights"] for c in ("", "@raw", "@ema")] == ["ema", "raw", "ema"]
    assert len({identity["sha256"] for identity in told.values()}) == 1
    assert set(load_judge("cifar10", f"{name}:{one}")[1]) == {"name", "sha256"}


@pytest.mark.parametrize(("raw", "ema"), [("state_dict", "state_dict_ema"), ("model", "ema")])
def test_averaged_weights_are_chosen_with_a_note(raw: str, ema: str) -> None:
    both = {raw: {"w": torch.zeros(1)}, ema: {"w": torch.ones(1)}}
    with pytest.warns(UserWarning, match=rf"\({ema}\).*the averaged ones are read; a\.pt@raw"):
        assert choose_set(both, Path("a.pt")) == (both[ema], "ema")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for choice, kept in (("raw", raw), ("ema", ema)):
            assert choose_set(both, Path("a.pt"), choice) == (both[kept], choice)


def test_an_entry_may_be_evaluated_with_raw_weights() -> None:
    assert CHECKPOINTS.get("pesser-ddpm-cifar10-raw").weights == "raw"
    one, two = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    with pytest.warns(UserWarning, match="the raw ones are read; a.pt@ema chooses"):
        found = choose_set({"model": one, "ema": two}, Path("a.pt"), default="raw")
    assert found == (one, "raw")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"w": torch.zeros(1)}, "net": {"w": torch.ones(1)}}, "under 'model' and 'net'"),
        ({"ema": {"shadow_params": [torch.zeros(1)]}}, "without their names"),
        ({"model": {"w": torch.zeros(1), "x": 3}}, "entry 'x' of a.pt is no named tensor"),
        ({"model": {}, "epoch": 3}, "entry 'model' of a.pt is no named tensor"),
        ({"model": {"model": {"model": {"model": {"model": {}}}}}}, "is no named tensor"),
    ],
)
def test_sets_without_a_meaning_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        choose_set(content, Path("a.pt"))


def test_every_name_of_a_set_has_one_kind() -> None:
    assert not set(AVERAGED) & set(RAW)


def test_choices_end_where_the_file_begins(tmp_path: Path) -> None:
    real = tmp_path / "model@raw"
    assert split_choices(real) == Choices(tmp_path / "model", "raw")
    real.write_bytes(b"")
    assert split_choices(real) == Choices(real)
    assert split_choices(f"{real}@ema@bicubic") == Choices(real, "ema", "bicubic")
    assert split_choices("a.pt@best").path == Path("a.pt@best")
    with pytest.raises(BadInput, match="name weights twice"):
        split_choices("a.pt@raw@ema")
    with pytest.raises(BadInput, match="choice bilinear means nothing to resnet56-cifar10"):
        load_checkpoint(RESNET, f"{real}@bilinear", any_checksum=True)


# Folders and shards


def sharded(folder: Path, state: dict[str, Tensor], stem: str = "model") -> Path:
    """Store tensors as two shards with an index, as save_pretrained does."""
    folder.mkdir(exist_ok=True)
    names = sorted(state)
    parts = [names[::2], names[1::2]]
    where = {}
    for k, part in enumerate(parts, 1):
        file = f"{stem}-0000{k}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        where.update(dict.fromkeys(part, file))
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


def test_folders_and_shards_are_read(first: dict[str, Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    index = sharded(folder, first, "diffusion_pytorch_model")
    (folder / "config.json").write_text("{}")
    sums = set()
    for given in (index, folder):
        module = load_checkpoint(RESNET, given, any_checksum=True)
        assert torch.equal(bias(module), first["linear.bias"])
        sums.add(sha256(given))
    assert len(sums) == 1
    to = tmp_path / "one.safetensors"
    assert convert(CHECKPOINTS.get(RESNET), folder, to, any_checksum=True) == 277
    # Another shard is another checksum.
    shard = next(folder.glob("*-00001-*.safetensors"))
    changed = {name: value + 1 for name, value in load_state(shard).items()}
    save_file(changed, shard)
    assert sha256(folder) not in sums
    whole = tmp_path / "whole"
    whole.mkdir()
    save_file(first, whole / "diffusion_pytorch_model.safetensors")
    assert digest(whole, "sha256") == sha256(whole / "diffusion_pytorch_model.safetensors")
    assert torch.equal(
        bias(load_checkpoint(RESNET, whole, any_checksum=True)), first["linear.bias"]
    )


def test_folders_and_indices_that_cannot_be_read(first: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder; name the \.safetensors in it"):
        load_checkpoint(RESNET, tmp_path)
    for load in (load_denoiser, load_classifier):
        target: Callable[..., object] = load
        with pytest.raises(BadInput, match=r"is a folder; name the .safetensors in it, or write"):
            target(**{"model" if load is load_denoiser else "weights": tmp_path})
    (tmp_path / "unet").mkdir()
    with pytest.raises(BadInput, match=rf"is a folder; name {tmp_path}.unet"):
        load_checkpoint(RESNET, tmp_path)
    index = sharded(tmp_path / "s", first)
    content = json.loads(index.read_text())
    for change, message in (
        ({"weight_map": {"linear.bias": "../../escaped.safetensors"}}, "is not a name"),
        ({"weight_map": {"linear.bias": 3}}, "is not a name"),
        ({"weight_map": {"linear.bias": "absent.safetensors"}}, "absent.safetensors is missing"),
        ({"weight_map": {}}, "has no weight_map"),
        (
            {"weight_map": {**content["weight_map"], "x": content["weight_map"]["linear.bias"]}},
            "tensor 'x' of .* is not in model-0000",
        ),
    ):
        index.write_text(json.dumps(change))
        with pytest.raises(BadInput, match=message):
            load_checkpoint(RESNET, index, any_checksum=True)
    for text in ("[" * 2000, "no json", "[]"):
        index.write_text(text)
        with pytest.raises(BadInput, match=r"nested deeper|is not JSON|has no weight_map"):
            load_checkpoint(RESNET, index, any_checksum=True)


@pytest.mark.slow
def test_a_folder_that_diffusers_saved_is_read(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    entry = CHECKPOINTS.get("google-ddpm-cifar10")
    network = entry.network(
        {name: torch.zeros(value.shape) for name, value in entry.skeleton()[0].state_dict().items()}
    )
    folder = tmp_path / "unet"
    network.unet.save_pretrained(folder, max_shard_size="50MB")  # type: ignore[union-attr]
    assert (folder / "diffusion_pytorch_model.safetensors.index.json").is_file()
    state, _ = read_weights(entry, folder)
    assert set(state) == set(entry.skeleton()[1].official())


# Kinds of tensors


def refused(value: Tensor, tmp_path: Path) -> str:
    torch.save({"w": value}, tmp_path / "a.pt")
    with pytest.raises(BadInput) as error:
        load_state(tmp_path / "a.pt")
    return str(error.value)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.complex64, torch.float8_e4m3fn]
)
def test_numbers_that_are_no_weights_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    line = refused(torch.zeros(3).to(dtype), tmp_path)
    assert f"has the type {str(dtype).removeprefix('torch.')}; store float16" in line


def test_tensors_without_memory_of_their_own_are_refused(tmp_path: Path) -> None:
    # 4 TB as expand() states them: nothing may walk over them.
    assert "as expand() makes them" in refused(torch.zeros(1).expand(2**40), tmp_path)
    windows = torch.zeros(4).as_strided((3, 2), (1, 1))
    assert "several numbers in one place" in refused(windows, tmp_path)
    assert "is not dense" in refused(torch.zeros(3).to_sparse(), tmp_path)
    assert "is not dense" in refused(torch.empty(3, device="meta"), tmp_path)
    fine = {"a": torch.zeros(2, 3).T, "b": torch.zeros(0, 4), "c": torch.zeros(8)[2:4]}
    torch.save(fine, tmp_path / "a.pt")
    assert set(load_state(tmp_path / "a.pt")) == set(fine)


def test_whole_numbers_are_no_weights_of_a_network(
    first: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({**first, "linear.bias": torch.zeros(10, dtype=torch.int64)}, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=r"linear.bias.* has the type int64; store float32"):
        load_checkpoint(RESNET, tmp_path / "a.pt", any_checksum=True)
    config = {"image_channels": 1, "classes": 3, "channels": [8]}
    network = build_network("resnet", config, torch.Generator().manual_seed(0))
    network.leave.bias = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)  # type: ignore[union-attr]
    path = tmp_path / "a.safetensors"
    save_network(path, network, architecture="resnet", config=config, metadata={})
    with pytest.raises(BadInput, match=r"leave.bias.* has the type int64; store float32"):
        load_network(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma_data": -1}, "sigma_data -1 is not above 0"),
        ({"sigma_data": 0}, "sigma_data 0 is not above 0"),
        ({"sigma_min": -0.1}, "sigma_min -0.1 is not above 0"),
        ({"sigma_max": 0.001}, "sigma_max 0.001 is not above 0.002"),
        ({"sigma_data": "wide"}, "sigma_data of .* 'wide' is not a number"),
        ({"sigma_data": True}, "sigma_data of .* True is not a number"),
        ({"sigma_data": [0.5]}, "is not a number"),
    ],
)
def test_a_noise_range_of_a_file_is_one(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = {"image_size": 8, "image_channels": 1, "channels": [8]}
    facts = {"task": "edm", "sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
    path = tmp_path / "a.safetensors"
    network = build_network("unet", config, torch.Generator().manual_seed(0))
    save_network(path, network, architecture="unet", config=config, metadata={**facts, **change})
    with pytest.raises(BadInput, match=message):
        load_denoiser(path)


@pytest.mark.slow
def test_a_list_of_what_to_use_names_nothing_that_is_refused() -> None:
    with pytest.raises(BadInput) as error:
        load_denoiser("digits-classifier")
    names = str(error.value).partition("use one of ")[2].split(", ")
    assert "digits-edm" in names
    for name in names:
        assert load_denoiser(name).sigma_max > 0


def test_a_name_that_is_not_shipped_is_told_those_that_would_fit() -> None:
    def told(call: Callable[[], object]) -> list[str]:
        with pytest.raises(BadInput) as error:
            call()
        return str(error.value).partition("use one of ")[2].split(", ")

    denoisers = told(lambda: load_purifier("cm", "digits", weights="nothere"))
    classifiers = told(lambda: load_classifier("digits", "nothere"))
    assert told(lambda: load_selector("digits", "nothere")) == ["digits-selector-025"]
    assert {"digits-cm", "digits-edm"} <= set(denoisers)
    assert {name.partition("-")[0] for name in denoisers + classifiers} == {"digits"}
    for name in classifiers:
        load_classifier("digits", name)
    with pytest.raises(BadInput, match="did you mean 'digits-classifier'"):
        load_classifier("digits", "digits-clasifier")
    with pytest.raises(BadInput) as error:
        load_purifier("cm", "digits", weights="digits-clasifier")
    assert "digits-classifier" not in str(error.value)


def test_a_converted_classifier_is_used_as_one(
    first: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(first, tmp_path / "mine.pt")
    to = tmp_path / "mine.safetensors"
    line = ["models", "convert", str(tmp_path / "mine.pt"), "--as", RESNET, "--to", str(to)]
    assert run([*line, "--any-checksum"]) == 0
    assert f"use it with --classifier {to}" in capsys.readouterr().out
