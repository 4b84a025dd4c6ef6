"""The full size of boosting, on a few made-up images and files of the official layouts.

The networks are small ones under the names of the published files, the Inception network is a
stand-in, and everything between them is what a full run uses.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advpure.analysis.metrics.networks import NETWORKS, FeatureNetwork, MetricContext
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.proof import recipe_weights
from advpure.checkpoints.vision import VisionConfig
from advpure.cli import run

pytest.importorskip("torchvision")
BOOSTERS = {
    "madry-resnet50-l2-3": "imagenet_l2_3_0.pt",
    "golan-joint-resnet50": "joint_resnet50.pt",
    "golan-joint-wide-resnet50-2": "joint_wide_resnet50_2.pt",
}
GENERATORS = {
    "cm-imagenet64-ct": "ct_imagenet64.pt",
    "cm-imagenet64-cd-lpips": "cd_imagenet64_lpips.pt",
}
SMALL = VisionConfig(library="torchvision", model="shufflenet_v2_x0_5", classes=1000)
UNET = {"channels": (32, 32), "layers": 1, "attention": (1,), "head_channels": 32}


def inception(context: MetricContext) -> FeatureNetwork:
    """Stand in for the Inception network: means of rows as features, three classes."""

    def look(images: Tensor) -> dict[str, Tensor]:
        rows = images.mean((1, 3))[:, ::16]
        classes = (9 * images.mean((2, 3))).softmax(1)
        return {"inception-2048": rows, "inception-classes": classes}

    outputs = ("inception-2048", "inception-classes")
    return FeatureNetwork(run=look, outputs=outputs, tile=8, identity={"sha256": "stand-in"})


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay out images, files and names as a full run finds them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    folder = tmp_path / "imagenet64"
    folder.mkdir()
    pen = np.random.default_rng(0)
    for name, count in (("train_data_batch_1", 12), ("val_data", 3)):
        pixels = pen.integers(0, 256, (count, 12288), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", data=pixels, labels=pen.integers(1, 1001, count))
    lines = [f"n{k:08d} {k} words\n" for k in range(1, 1001)]
    (folder / "map_clsloc.txt").write_text("".join(lines))
    monkeypatch.setattr(CHECKPOINTS, "_entries", dict(CHECKPOINTS._entries))
    for name, file in (BOOSTERS | GENERATORS).items():
        whole: Checkpoint = CHECKPOINTS.get(name)
        config = SMALL if name in BOOSTERS else replace(whole.config, **UNET)
        entry = replace(whole, config=config)
        del CHECKPOINTS._entries[name]
        CHECKPOINTS.register(name, entry)
        state = recipe_weights(entry.skeleton()[1].official(), len(name))
        torch.save({"model": state} if name in BOOSTERS else state, file)
    monkeypatch.setattr(NETWORKS, "_entries", dict(NETWORKS._entries))
    del NETWORKS._entries["inception"]
    NETWORKS.register("inception", inception)


def reproduce(name: str, capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    """Run an experiment of the paper in full size on four images, and return its rows."""
    words = ["reproduce", f"002:{name}", "--size", "full", "--set", "n=4"]
    code = run([*words, "--set", "tile=4", "--jobs", "1", "--json", *more])
    printed = capsys.readouterr()
    assert code == 0, printed.err + printed.out
    found = json.loads(printed.out)
    assert not found["failed"]
    rows: list[dict[str, Any]] = found["rows"]
    assert {row["n"] for row in rows} == {4}
    return rows


@pytest.mark.slow
@pytest.mark.usefixtures("official")
def test_tables_of_the_full_size_come_from_official_files_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = reproduce("table-1", capsys, "--set", "boost_options.steps=2")
    rows = {(row["model"], row["steps"], row["booster"]): row for row in listed}
    assert len(rows) == len(listed) == 12
    row = rows["ct", 2, "joint-wide"]
    assert row["published"]["frechet"]["value"] == 7.98
    assert row["published"]["before"]["value"] == 11.12
    assert row["published"]["score"]["value"] == 46.33
    assert isinstance(row["frechet"], float)
    assert isinstance(row["precision"], float)
    assert rows["cd", 1, "classifier"]["before"] == rows["cd", 1, "joint"]["before"]
    assert rows["cd", 1, "classifier"]["frechet"] != rows["cd", 1, "joint"]["frechet"]


@pytest.mark.slow
@pytest.mark.usefixtures("official")
@pytest.mark.parametrize("name", ["table-4", "figure-2"])
def test_images_of_others_generators_are_boosted_in_the_full_size(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pen = np.random.default_rng(1)
    for file in ("adm-64.npz", "biggan-64.npz", "iddpm-64.npz"):
        pixels = pen.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        np.savez(file, arr_0=pixels, arr_1=pen.integers(0, 1000, 4))
    rows = reproduce(name, capsys, "--plot", "x.png")
    assert "adm-64" in {row["generator"] for row in rows}
    assert Path("x.png").stat().st_size > 5_000
