"""checkpoint.pt: what does not fit is one line, a full disk loses nothing, SIGTERM saves."""

import copy
import json
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advpure.base.errors import BadInput
from advpure.base.stopping import stoppable
from advpure.base.storage import StorageFull
from advpure.cli import run
from advpure.data import RawSplit
from advpure.networks import build_network
from advpure.networks.weights import LoadedNetwork
from advpure.training import Recipe
from advpure.training.classifier import ClassifierTask
from advpure.training.randomness import step_generator
from advpure.training.trainer import Trainer

RECIPE = Recipe(
    name="tiny",
    about="A tiny classifier",
    task="classifier",
    dataset="digits",
    architecture="resnet",
    network={"image_channels": 1, "classes": 10, "channels": [8]},
    steps=6,
    batch=8,
    seed=1,
    warmup=2,
    validate_every=2,
)
TOML = """
name = "tiny"
about = "A tiny classifier"
task = "classifier"
dataset = "digits"
architecture = "resnet"
steps = 4
batch = 8
seed = 0
[network]
image_channels = 1
classes = 10
channels = [8]
"""


def trainer(folder: Path) -> Trainer:
    network = build_network("resnet", RECIPE.network, step_generator(1, "initial weights"))
    pixels = torch.randint(0, 17, (20, 1, 8, 8), generator=step_generator(0)).to(torch.uint8)
    data = RawSplit(pixels, torch.arange(20) % 10, 16)
    return Trainer(RECIPE, ClassifierTask("digits", {}), network, data, folder)


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


# A full disk


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run(6)
    folder = tmp_path / "run"
    trainer(folder).run(3)
    before = (folder / "checkpoint.pt").read_bytes()
    part = trainer(folder)
    assert part.resume()
    # This is what torch.save itself raises; no handler of OSError would see it.
    with limited(4096), pytest.raises(RuntimeError) as own:
        torch.save(part.state(), tmp_path / "own.pt")
    assert not isinstance(own.value, OSError | StorageFull)
    with limited(4096), pytest.raises(StorageFull, match=r"no room left to write .*checkpoint\.pt"):
        part.run(4)
    assert (folder / "checkpoint.pt").read_bytes() == before
    assert not list(folder.glob(".*"))
    again = trainer(folder)
    assert again.resume()
    assert again.step == 3
    again.run(6)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TOML)
    command = ["train", str(recipe), "--out", str(tmp_path / "run"), "--quiet"]
    with limited(4096):
        assert run(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("advpure: no room left to write ")
    assert error.count("\n") == 1
    assert run(command) == 0
    assert (tmp_path / "run" / "tiny.safetensors").is_file()


def test_sigterm_finishes_the_step_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trainer(tmp_path)
    step = training._one_step

    def stopped() -> float:
        if training.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step()

    monkeypatch.setattr(training, "_one_step", stopped)
    with stoppable():  # as the command line runs; without it, SIGTERM ends the process once saved
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            training.run(6)
        assert signal.getsignal(signal.SIGTERM) is before
    again = trainer(tmp_path)
    assert again.resume()
    assert again.step == 3


# Members


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("stored")
    trainer(folder).run(4)
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return state


FINE = {("teacher", "None"), ("task", "{}"), ("rows", "[]"), ("seconds", str(2**70))}
MEMBERS = ("recipe", "network", "average", "optimizer", "step", "seconds", "loss", "rows")


@pytest.mark.parametrize("member", MEMBERS)
def test_a_missing_member_is_named(stored: dict[str, Any], tmp_path: Path, member: str) -> None:
    rest = {name: value for name, value in stored.items() if name != member}
    torch.save(rest, tmp_path / "checkpoint.pt")
    with pytest.raises(BadInput, match=rf"checkpoint\.pt has no '{member}'; delete it, or choose"):
        trainer(tmp_path).resume()


@pytest.mark.parametrize("member", [*MEMBERS, "task", "begun", "teacher"])
@pytest.mark.parametrize(
    "value", [None, True, -1, 2**70, "x", [], [1, 2, 3], {}, {"a": 1}, torch.zeros(2), {1: {}}]
)
def test_a_member_of_another_kind_is_one_line(
    stored: dict[str, Any], tmp_path: Path, member: str, value: Any
) -> None:
    if (member, str(value)) in FINE:
        return
    torch.save({**stored, member: value}, tmp_path / "checkpoint.pt")
    training = trainer(tmp_path)
    before = copy.deepcopy(training.network.state_dict())
    with pytest.raises(BadInput) as error:
        training.resume()
    assert "\n" not in str(error.value)
    assert "checkpoint.pt" in str(error.value)
    assert training.step == 0
    assert all(torch.equal(v, before[k]) for k, v in training.network.state_dict().items())


def changed(stored: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    state = copy.deepcopy(stored)
    place: Any = state
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return state


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("network", "enter.weight"), torch.zeros(3), r"has shape \(3,\), not \(8, 1, 3, 3\)"),
        (("network", "enter.weight"), KeyError, "tensor 'enter.weight' of network .* is missing"),
        (("average", "extra"), torch.zeros(1), "tensor 'extra' of average .* is unknown"),
        (("average", "leave.bias"), torch.zeros(10).bool(), "has the type bool"),
        (("average", "leave.bias"), torch.zeros(10).long(), "has the type int64; store float32"),
        (("network", "leave.bias"), torch.zeros(1).expand(10), "as expand"),
        (("network", "leave.bias"), torch.full((10,), float("nan")), "is not finite"),
        (("optimizer", "param_groups"), [], "has no 1 groups of parameters"),
        (("optimizer", "param_groups", 0, "lr"), "fast", "lr in the optimizer .* is not a number"),
        (("optimizer", "param_groups", 0, "betas"), (2, 3), r"betas \(2, 3\) in the optimizer"),
        (("optimizer", "param_groups", 0, "params"), [0], r"params \[0\] in the optimizer"),
        (("optimizer", "state", 0, "exp_avg"), torch.zeros(3), "moments of parameter 0"),
        (("optimizer", "state", 0, "exp_avg"), KeyError, "moments of parameter 0"),
        (("optimizer", "state", 0, "step"), "two", "moments of parameter 0"),
        (("optimizer", "state", 0), 3, "moments of parameter 0"),
        (("optimizer", "state", 0, "exp_avg"), torch.tensor(float("nan")), "moments of parameter"),
        (("optimizer", "state", 0, "more"), torch.tensor(1.0), "moments of parameter 0"),
        (("optimizer", "state"), {}, r"keeps nothing of \d steps"),
        (("best",), 1, "checkpoint.pt has 'best', which no training stores"),
        (("begun",), 99, r"begun 99 of .* is after its step \d"),
        (("rows",), [[99, 1.0, 2.0, 3.0]], r"a row of step 99 of .* is not within \d steps"),
        (("optimizer", "state", 99), {}, "parameter 99 in the optimizer .* is unknown"),
        (("loss",), [1.0], "is no sum and count"),
        (("rows",), [[1, 2, 3]], "are no rows of the log"),
        (("rows",), [[1, "x", 3, 4]], "are no rows of the log"),
        (("recipe",), "[" * 2000, "recipe of checkpoint .* is nested deeper"),
        (("recipe",), "{}", "was made with another name"),
    ],
)
def test_a_part_that_does_not_fit_is_named(
    stored: dict[str, Any], tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    torch.save(changed(stored, path, value), tmp_path / "checkpoint.pt")
    with pytest.raises(BadInput, match=message):
        trainer(tmp_path).resume()


def test_a_checkpoint_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TOML)
    folder = tmp_path / "run"
    folder.mkdir()
    makers: tuple[Callable[[Path], object], ...] = (
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save(torch.zeros(2), path),
        lambda path: path.write_bytes(b"PK\x03\x04"),
    )
    for make in makers:
        make(folder / "checkpoint.pt")
        assert run(["train", str(recipe), "--out", str(folder), "--quiet"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("advpure: checkpoint ")
        assert error.count("\n") == 1


def test_exported_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    recipe = json.loads(training.state()["recipe"])
    other = build_network("resnet", {**RECIPE.network, "channels": [4]})
    for network, facts, message in (
        (other, {"recipe": recipe, "steps": 2}, "has shape"),
        (training.network, {"recipe": recipe}, "steps of weights x None"),
        (training.network, {"recipe": recipe, "steps": "two"}, "steps of weights x 'two'"),
        (training.network, {"recipe": 3, "steps": 2}, "another name"),
        (nn.Identity(), {"recipe": recipe, "steps": 2}, "is missing"),
    ):
        with pytest.raises(BadInput, match=message):
            trainer(tmp_path).go_on_from(LoadedNetwork(network, facts), "weights x")
