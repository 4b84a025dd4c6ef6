"""A recorded compression run: the same numbers as the function, reported from its records."""

from pathlib import Path
from typing import Any

import pytest
import torch

from advpure.analysis import expected_compression_rate
from advpure.analysis.compression.study import Compression
from advpure.base.errors import BadInput
from advpure.data import load_images
from advpure.loading import load_purifier
from advpure.runs.records import RecordStore

QUICK: dict[str, Any] = {"n": 5, "perturbations": 3}


@pytest.mark.parametrize("more", [{}, {"distribution": "sign", "clip": True, "seeds": [3, 4]}])
def test_the_run_gives_the_rows_of_the_function(tmp_path: Path, more: dict[str, Any]) -> None:
    report = Compression.run(Compression(**QUICK, eps="8/255", **more), out=tmp_path)
    images, _, ids = load_images(n=5)
    options = {"seeds": 0, **more}
    direct = expected_compression_rate(
        load_purifier("cm"), images, ids=ids, eps="8/255", perturbations=3, **options
    )
    assert sorted(report.result.rows) == sorted(direct.rows)
    assert report.result.pooled == direct.pooled


def test_no_purifier_compresses_nothing(tmp_path: Path) -> None:
    report = Compression(**QUICK, defense="none", limit=True).run(out=tmp_path)
    assert report.to_json()["mean"] == pytest.approx(1.0, abs=1e-12)
    assert report.to_json()["limit"]["value"] == 1.0


def test_json_has_the_first_strength_on_top(tmp_path: Path) -> None:
    run = Compression(**QUICK, eps=["4/255", 0.1], seeds=[0, 1])
    found = Compression.run(run, out=tmp_path).to_json()
    top, (first, second) = found, found["rows"]
    assert (first["eps"], second["eps"]) == (4 / 255, 0.1)
    assert {key: top[key] for key in first} == first
    assert first["n"] == 5
    assert len(found["by_seed"]) == 4
    low, high = first["interval"]
    assert low < first["mean"] < high
    per_seed = [row["mean"] for row in found["by_seed"] if row["eps"] == 0.1]
    assert second["mean"] == pytest.approx(sum(per_seed) / 2)
    with RecordStore.read(tmp_path) as store:
        rates = [row["rate"] for row in store.rows("compression") if row["eps"] == 0.1]
    assert second["mean"] == pytest.approx(sum(rates) / len(rates))


def test_std_is_over_images(tmp_path: Path) -> None:
    report = Compression.run(Compression(**QUICK), out=tmp_path)
    means = torch.tensor(list(report.result.image_means(0.15).values()), dtype=torch.float64)
    assert len(means) == 5
    assert report.to_json()["std"] == pytest.approx(float(means.std()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {"xi": 1}}, "option 'xi' of cm is not known"),
        ({"device": "cuda:99"}, "device 'cuda:99' is"),
        ({"distribution": "cauchy"}, "distribution 'cauchy' is not known"),
        ({"eps": []}, "is empty"),
        ({"seeds": [0, 0]}, "repeat a value"),
        ({"n": 451}, "does not fit"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Compression.load(Compression(**change))
