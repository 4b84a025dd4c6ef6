"""Metrics by name: closed-form distances, resume, independence of batches, refused values."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from advpure.analysis import METRICS, measure
from advpure.analysis.metrics.distance import distance
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.loading import load_purifier

XI = RandomnessConfig(5)


def gaussian(name: str = "onestep-edm", **options: object) -> Purifier:
    network = GaussianDenoiser(torch.full((1, 2, 2), 0.2), 0.25)
    return load_purifier(name, xi=XI, denoiser=network, tile=4, **options)  # type: ignore[arg-type]


@pytest.fixture
def images(pictures: Callable[..., Tensor]) -> Images:
    return Images(pictures(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64), torch.arange(10, 16))


def test_distance_of_one_step_is_noise_then_shrinkage(images: Images) -> None:
    found = distance(gaussian(sigma=0.1, time_rule="exact").bind(images.ids), images.images)
    z = XI.normal(images.ids, "forward", 1, (1, 2, 2))
    noised = images.images + 0.1 * z
    share = 0.25 / (0.25 + 0.2**2)
    mean = 0.6  # the model's 0.2 in [0, 1] units
    denoised = mean + share * (noised - mean)
    expected = [(state - images.images).flatten(1).norm(dim=1) for state in (noised, denoised)]
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-5, atol=1e-6)


def test_shrinkage_of_variance_preserving_states_is_no_distance(images: Images) -> None:
    purifier = gaussian("ddpm", t=500).bind(images.ids)
    found = distance(purifier, images.images)
    forward = [k for k, step in enumerate(purifier.chain) if step.phase == "forward"]
    sigma = purifier.chain[forward[-1]].sigma
    # Distance in units of sigma / 2: a chi variable with 4 degrees of freedom per image.
    squares = (found[:, forward[-1]] / (sigma / 2)) ** 2
    assert 0.2 < squares.mean() / 4 < 3.0


def test_rows_resume_and_do_not_depend_on_batches(images: Images, tmp_path: Path) -> None:
    whole = measure("distance", gaussian(), images, out=tmp_path / "whole")
    parts = measure("distance", gaussian(), images, out=tmp_path / "parts", batch_size=1)
    assert whole.rows == parts.rows
    calls: list[int] = []
    again = measure("distance", gaussian(), images, out=tmp_path / "whole", progress=calls.append)
    assert calls == [6]
    assert again.rows == whole.rows
    assert whole.means()[0].n == 6
    assert whole.to_json()["places"][1]["place"] == 1


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (lambda p, x: x, r"of shape \(4, 1, 2, 2\) for 4 images is not \[4\] or \[4, places\]"),
        (lambda p, x: x.sum(), r"of shape \(\) for 4 images"),
        (lambda p, x: x.flatten(1)[:3], r"of shape \(3, 4\) for 4 images"),
        (lambda p, x: 1.0, "of shape float for 4 images"),
        (lambda p, x: torch.where(p.ids == 11, torch.nan, 1.0), r"1 of 6 samples \(11\) is not"),
        (lambda p, x: torch.full((len(x),), torch.nan), r"6 of 6 samples \(10, 11, 12, 13, 14, 1"),
        (lambda p, x: x.new_zeros((len(x), 0)), "has no value"),
    ],
)
def test_values_that_are_no_values_are_refused(
    value: Callable[[Purifier, Tensor], Tensor],
    rule: str,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(METRICS, "get", lambda name: value)
    with pytest.raises(BadInput, match=rule):
        measure("distance", gaussian(), images, out=tmp_path)


def test_another_purifier_is_another_run(images: Images, tmp_path: Path) -> None:
    measure("distance", gaussian(), images, out=tmp_path)
    with pytest.raises(BadInput, match="sigma"):
        measure("distance", gaussian(sigma=0.3), images, out=tmp_path)


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean distance"):
        METRICS.get("distanc")
