"""Generation: samplers on Gaussian data, labels, one image alone, files, refusals."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from advpure.analysis.generation.images import (
    Generated,
    Generator,
    load_generator,
    read_generated,
    to_bytes,
    write_generated,
)
from advpure.analysis.generation.samplers import Sampler, grey_images, sampler_chain
from advpure.analysis.generation.study import Generate, stored_images
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Noise
from advpure.core.randomness import RandomnessConfig
from advpure.core.schedules import karras_grid, linear_schedule
from advpure.data import load_images
from advpure.networks import build_network
from advpure.networks.weights import save_network
from advpure.runs.records import RecordStore

MEAN, SPREAD = 0.1, 0.2
XI = RandomnessConfig(5)
IDS = torch.arange(300)


def states(sampler: Sampler, steps: int, ids: Tensor = IDS, at: Sequence[int] = ()) -> Tensor:
    """Return what a sampler makes of Gaussian data, model units, float64."""
    network = GaussianDenoiser(torch.full((1, 2, 2), MEAN), SPREAD**2)
    chain = sampler_chain(sampler, network, steps, at=at)
    grey = grey_images(len(ids), (1, 2, 2), "cpu").double()
    return 2 * chain.purify(grey, Noise(XI, ids)) - 1


def noise(time: int, ids: Tensor = IDS) -> Tensor:
    return XI.normal(ids, "forward", time, (1, 2, 2)).double()


def shrunk(x: Tensor, level: float) -> Tensor:
    return MEAN + SPREAD**2 / (SPREAD**2 + level**2) * (x - MEAN)


def test_one_step_of_a_consistency_model_is_its_answer_to_noise_alone() -> None:
    assert torch.allclose(states("cm", 1), shrunk(80 * noise(1), 80.0), atol=1e-12)


def test_further_steps_add_noise_of_the_nodes_and_ask_again() -> None:
    grid = karras_grid(18, 0.002, 80.0)
    first = shrunk(80 * noise(1), 80.0).clamp(-1, 1)
    even, chosen = float(grid[8]), float(grid[12])  # of 17 intervals, half is 8.5, and even is 8
    for level, made in ((even, states("cm", 2)), (chosen, states("cm", 2, at=(0, 12)))):
        again = first + level * noise(2)  # sigma_min of Gaussian data is 0
        assert torch.allclose(made, shrunk(again, level).clamp(-1, 1), atol=1e-9)


def test_heun_ends_where_the_ode_of_gaussian_data_does() -> None:
    exact = MEAN + SPREAD / math.hypot(SPREAD, 80.0) * (80 * noise(1) - MEAN)
    errors = [float((states("edm", nodes) - exact).abs().max()) for nodes in (20, 40, 80)]
    assert errors[0] < 0.05
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([4.0, 4.0], rel=0.35)


def test_ancestral_sampling_has_the_variance_of_its_recursion() -> None:
    made = states("ddpm", 50)
    abar = linear_schedule().abar
    kept = list(range(999, -1, -20))
    variance, mean = 1.0 - abar[999], 0.0
    for i, prev in zip(kept, [*kept[1:], -1], strict=True):
        before = abar[prev] if prev >= 0 else 1.0
        a = abar[i] / before
        c0 = (1 - a) * math.sqrt(before) / (1 - abar[i])
        c1 = (1 - before) * math.sqrt(a) / (1 - abar[i])
        share = SPREAD**2 / (SPREAD**2 + (1 - abar[i]) / abar[i])
        slope = c1 + c0 * share / math.sqrt(abar[i])
        mean = slope * mean + c0 * (1 - share) * MEAN
        variance = slope**2 * variance + (1 - a) * (prev >= 0)
    n = made.numel()
    assert abs(float(made.mean()) - mean) < stats.norm.ppf(1 - 1e-5) * math.sqrt(variance / n)
    low, high = stats.chi2.ppf([5e-6, 1 - 5e-6], n - 1)
    assert low < float((made - made.mean()).square().sum()) / variance < high


def test_implicit_sampling_is_a_function_of_the_first_noise() -> None:
    errors = []
    for steps in (50, 100, 200):  # order 1: twice the steps, half the error
        scaled = (states("ddim", steps) - MEAN) / SPREAD
        errors.append(float((scaled - noise(1000)).abs().max()))
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2.0, 2.0], rel=0.2)


def conditional(folder: Path, task: str = "consistency") -> Path:
    """Write a class-conditional network with random weights, whose classes differ."""
    shape = {"image_size": 8, "image_channels": 1, "channels": [8], "embedding": 8, "classes": 10}
    network = build_network("unet", shape, torch.Generator().manual_seed(0))
    pen = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(0.3 * torch.randn(value.shape, generator=pen))
    path = folder / "conditional.safetensors"
    facts = {"task": task, "dataset": "digits", "nodes": 18, "name": "conditional"}
    levels = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
    save_network(path, network, architecture="unet", config=shape, metadata={**facts, **levels})
    return path


def generator(path: Path | None, labels: str | int, sampler: Sampler = "cm") -> Generator:
    return load_generator(sampler, "digits", labels=labels, weights=path)


def test_an_image_depends_on_seed_and_id_and_label_alone(tmp_path: Path) -> None:
    path = conditional(tmp_path)
    uniform = generator(path, "auto")
    whole = uniform.make(range(9), 2, XI)
    assert whole.labels is not None
    for i in (0, 4, 8):
        alone = uniform.make([i], 2, XI)
        assert torch.equal(alone.images[0], whole.images[i])
        assert alone.labels is not None
        assert alone.labels.item() == whole.labels[i].item()
        own = generator(path, whole.labels[i].item()).make([i], 2, XI)
        assert torch.equal(own.images, alone.images)
    other = generator(path, (int(whole.labels[0]) + 1) % 10).make([0], 2, XI)
    assert not torch.equal(other.images[0], whole.images[0])
    none = generator(path, "none").make([0], 2, XI)
    assert none.labels is None
    assert not torch.equal(none.images[0], whole.images[0])
    assert not torch.equal(uniform.make([0], 2, RandomnessConfig(6)).images[0], whole.images[0])


def test_uniform_labels_are_uniform(tmp_path: Path) -> None:
    drawn = generator(conditional(tmp_path), "uniform").classes_for(torch.arange(20_000), XI)
    assert drawn is not None
    assert stats.chisquare(np.bincount(drawn, minlength=10)).pvalue > 1e-5
    fixed = generator(conditional(tmp_path), "7").classes_for(torch.arange(3), XI)
    assert fixed is not None
    assert fixed.tolist() == [7, 7, 7]


def test_files_hold_what_was_generated(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    for pixels, step in (("rounded", 0.5 / 255), ("truncated", 1 / 255), ("float", 0.0)):
        path = write_generated(tmp_path / "x.npz", Generated(images, labels), pixels)  # type: ignore[arg-type]
        back = read_generated(path)
        assert float((back.images - images).abs().max()) <= step + 1e-6
        assert back.labels is not None
        assert back.labels.tolist() == labels.tolist()
        again = load_images(str(path))
        assert torch.equal(again.images, back.images)
    theirs = tmp_path / "theirs.npz"  # as published samplers write them
    np.savez(theirs, arr_0=to_bytes(images, "rounded").permute(0, 2, 3, 1).numpy())
    unlabelled = read_generated(theirs)
    assert unlabelled.labels is None
    assert torch.equal(unlabelled.images, to_bytes(images, "rounded").float() / 255)
    np.savez(
        theirs, arr_0=to_bytes(images, "rounded").permute(0, 2, 3, 1).numpy(), arr_1=labels.numpy()
    )
    assert read_generated(theirs).labels is not None
    assert to_bytes(torch.tensor([-1.0, 0.0, 1.0, 2.0]), "rounded").tolist() == [0, 0, 255, 255]


@pytest.mark.slow
def test_the_verb_writes_records_files_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "generate --dataset digits --labels none --steps 1,2 -n 3 --out run --save made.npz"
    assert run([*words.split(), "--pictures", "png", "--plot", "made.png", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["steps"] for row in told["rows"]] == [1, 2]
    assert [row["evaluations"] for row in told["rows"]] == [1, 2]
    assert told["saved"] == ["made-1.npz", "made-2.npz"]
    assert sorted(each.name for each in Path("png/steps-2").iterdir()) == [
        f"{i:06d}.png" for i in range(3)
    ]
    with RecordStore.read("run") as store:
        ids, stored = stored_images(store, 2)
        assert ids == [0, 1, 2]
        assert float((read_generated("made-2.npz").images - stored.images).abs().max()) < 0.51 / 255
        assert stored_images(store)[0] == ids
    alone = Generate(dataset="digits", labels="none", steps=(2,), n=2).run(out="alone")
    with RecordStore.read(alone.run) as store:
        assert torch.equal(stored_images(store)[1].images, stored.images[:2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--labels uniform --weights digits-cm",
            "labels uniform need a class-conditional network, which digits-cm",
        ),
        ("--labels 10", "label '10' is no class of digits"),
        ("--labels cat", "label 'cat' is no class of digits"),
        ("--steps 0", "steps"),
        ("--steps 2,2", "steps 2,2 repeat a"),
        ("--steps 18", "18 steps"),
        ("--steps 2 --at 0,12,14", "3 nodes do not give 2 steps their nodes"),
        ("--at 1,5", "nodes 1, 5 do not fit a grid of 18"),
        ("--model edm --at 0", "at"),
        ("--model gan", "model 'gan' is not known"),
        ("--save made.png", "is no file of images"),
        ("--pixels float", "pixels"),
        ("--weights digits-classifier", "is no denoiser"),
        ("--weights cifar10-cm", "does not fit digits images"),
    ],
)
def test_what_cannot_be_generated_is_refused_in_one_line(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run"), "-q"]
    assert run(["generate", "--dataset", "digits", "-n", "2", *words.split(), *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("advpure: ")
    assert said in error
    assert error.count("\n") == 1


def test_files_in_another_form_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(BadInput, match="are missing"):
        read_generated(path)
    np.savez(path, pictures=np.zeros(3))
    with pytest.raises(BadInput, match="have no array 'images', but pictures"):
        read_generated(path)
    np.savez(path, images=np.zeros((2, 8, 8, 1), np.uint8), labels=np.array([0.5, 1]))
    with pytest.raises(BadInput, match="are no classes of 2 images"):
        read_generated(path)
    path.write_bytes(b"x")
    with pytest.raises(BadInput, match="is damaged or no npz"):
        read_generated(path)
