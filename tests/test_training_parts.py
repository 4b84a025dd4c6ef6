"""Networks of which parts are trained: the rest stays its base's, in memory and in the file."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from advpure.base.errors import BadInput
from advpure.models import model_path
from advpure.networks.weights import HEADER, load_network, load_state, save_network, sha256
from advpure.training import Recipe, load_recipe, run, train
from advpure.training.labelled import TOKENS
from advpure.training.randomness import step_generator

PARTS = ("modulate", "tokens")


def plan(**changes: Any) -> Recipe:
    recipe = load_recipe("digits-edm")
    settings = {"name": "parts", "teacher": "digits-edm", "trained": PARTS, "steps": 3, "batch": 8}
    return dataclasses.replace(
        recipe, **{**settings, "network": {"classes": 10, "dropout": 0.0}, **changes}
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(plan(), out=tmp_path_factory.mktemp("parts"), progress=False).weights


def test_what_is_not_trained_stays_and_is_not_stored(parts: Path) -> None:
    stored, whole = load_state(parts), load_network(parts)
    assert set(stored) == {"modulate.weight", "modulate.bias", TOKENS}
    base = load_network(model_path("digits-edm")).network.state_dict()
    for name, value in whole.network.state_dict().items():
        if name in stored:
            assert torch.equal(value, stored[name].float())
        else:
            assert torch.equal(value, base[name]), name
    assert not torch.equal(stored["modulate.weight"].float(), base["modulate.weight"])
    assert stored[TOKENS].shape == (10, 64)
    assert whole.metadata["base"] == {
        "name": "digits-edm", "sha256": sha256(model_path("digits-edm")),
    }  # fmt: skip
    assert parts.stat().st_size < 0.2 * model_path("digits-edm").stat().st_size
    card = parts.with_suffix(".md").read_text()
    assert "stored as float16, the others those of `digits-edm`" in card
    assert f"{sum(value.numel() for value in stored.values()):,} of them" in card


@pytest.mark.slow
def test_before_it_is_trained_a_network_with_classes_is_its_base(tmp_path: Path) -> None:
    first = train(plan(learning_rate=1e-12), out=tmp_path, progress=False).weights
    x, noise = torch.randn(2, 1, 8, 8, generator=step_generator(0)), torch.tensor([0.1, 0.4])
    one = load_network(first).network(x, noise, torch.tensor([3, 7]))
    torch.testing.assert_close(one, load_network(model_path("digits-edm")).network(x, noise))


@pytest.mark.slow
def test_such_a_training_resumes_bit_for_bit(parts: Path, tmp_path: Path) -> None:
    train(plan(), out=tmp_path, until=1, progress=False)
    again = load_state(train(plan(), out=tmp_path, progress=False).weights)
    assert all(torch.equal(value, again[name]) for name, value in load_state(parts).items())


@pytest.mark.slow
def test_a_network_of_parts_teaches_and_its_base_remains_the_shipped_one(
    parts: Path, tmp_path: Path
) -> None:
    student = train(plan(teacher=str(parts)), out=tmp_path, progress=False).weights
    assert load_network(student).metadata["base"]["name"] == "digits-edm"
    assert "enter.weight" not in load_state(student)


@pytest.mark.slow
def test_a_teacher_that_does_not_ship_is_stored_whole(tmp_path: Path) -> None:
    whole = tmp_path / "own.safetensors"
    whole.write_bytes(model_path("digits-edm").read_bytes())
    student = train(plan(teacher=str(whole)), out=tmp_path / "run", progress=False).weights
    assert "base" not in load_network(student).metadata
    assert "enter.weight" in load_state(student)


def headed(path: Path, to: Path, **base: Any) -> Path:
    """Store a file with another base in its header."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as stream:
        header = json.loads(stream.metadata()[HEADER])
    header["base"] = {**header["base"], **base}
    save_file(load_file(path), to, {HEADER: json.dumps(header)})
    return to


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"sha256": "0" * 64}, "has another SHA-256 sum here than"),
        ({"name": "digits-other"}, "base 'digits-other' of .* is not shipped here"),
        ({"name": "../models/digits-edm"}, "is not shipped here"),
        ({"name": 3}, "has a malformed base in its header"),
        ({"sha256": None}, "has a malformed base in its header"),
    ],
)
def test_another_base_is_refused(
    parts: Path, tmp_path: Path, base: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        load_network(headed(parts, tmp_path / "x.safetensors", **base))


def test_a_format_that_needs_a_base_has_one(parts: Path, tmp_path: Path) -> None:
    network, metadata = load_network(parts)
    path = tmp_path / "x.safetensors"
    save_network(
        path, network, architecture="unet", config=metadata["config"], metadata={}, base=None
    )
    assert "base" not in load_network(path).metadata
    torch.testing.assert_close(load_network(path).network.state_dict(), network.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained": ["modulation"]}, "trained 'modulation' is no part of the names .* modulate"),
        ({"trained": ["modulate"], "teacher": None}, "trained modulate are parts of a network"),
        ({"trained": "modulate"}, "trained 'modulate' is no list"),
        ({"trained": [3]}, r"trained\[0\] 3 is not a text"),
        ({"teacher": "cifar10-edm"}, "noise range"),
        ({"teacher": "digits-cm"}, "teacher is not a denoiser of the edm task"),
    ],
)
def test_parts_and_starts_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        train(plan(**changes), out=tmp_path, progress=False)


@pytest.mark.slow
def test_a_denoiser_that_does_not_ship_is_trained_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder beside, as a teacher is; the records name it as the recipe does."""
    shipped, read = run.list_models, run.load_recipe
    monkeypatch.setattr(run, "list_models", lambda: [n for n in shipped() if n != "digits-edm"])
    monkeypatch.setattr(
        run, "load_recipe", lambda name: dataclasses.replace(read(name), steps=1, batch=8)
    )
    student = dataclasses.replace(
        read("digits-cm"), name="student", teacher="digits-cm", steps=1, batch=8,
        loss={"nodes": 6, "distance": "l2", "edm": "digits-edm"},
    )  # fmt: skip
    made = train(student, out=tmp_path / "student", progress=False).weights
    beside = tmp_path / "digits-edm" / "digits-edm.safetensors"
    metadata = load_network(made).metadata
    assert metadata["denoiser"] == metadata["recipe"]["loss"]["edm"] == "digits-edm"
    assert metadata["denoiser_sha256"] == sha256(beside)
    assert str(tmp_path) not in made.with_suffix(".md").read_text()
    assert train(student, out=tmp_path / "student", progress=False).steps == 1
