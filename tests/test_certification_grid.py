"""Noise on a grid: its law, its exactness, and the certificate that normal noise gets wrong."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm
from torch import Tensor, nn

from advpure.analysis.certification.grid import GridNoise, find_grid, law
from advpure.analysis.certification.study import Certification
from advpure.base.errors import BadInput
from advpure.core.randomness import RandomnessConfig

SIGMA, GRID = 0.22, 256
XI = RandomnessConfig(4, "counter").fold("certify", "estimation")


def drawn(count: int, image: Tensor, first: int = 0, sigma: float = SIGMA) -> Tensor:
    out = torch.empty(count, *image.shape)
    GridNoise(XI, GRID).place(out, image, 7, first, sigma)
    return out


@pytest.mark.parametrize("scheme", ["hash", "counter"])
def test_steps_follow_the_normal_law_rounded_to_the_grid(scheme: str) -> None:
    sigma, grid = 0.02, 256
    noise = GridNoise(RandomnessConfig(1, scheme), grid)  # type: ignore[arg-type]
    out = torch.empty(256, 1, 16, 16)
    noise.place(out, torch.zeros(1, 16, 16), 0, 0, sigma)
    steps = (out.double() * grid).round().long().flatten().numpy()
    edges = np.arange(-9, 10)
    shares = norm.cdf((edges + 0.5) / (sigma * grid)) - norm.cdf((edges - 0.5) / (sigma * grid))
    counts = np.array([(steps == k).sum() for k in edges])
    counts = np.append(counts, len(steps) - counts.sum())
    expected = np.append(shares, 1 - shares.sum()) * len(steps)
    assert chisquare(counts, expected).pvalue > 1e-5


def test_the_law_is_the_error_function_at_half_steps() -> None:
    table = law(SIGMA, GRID)
    for j in (0, 3, 50):
        share = math.erf((j + 0.5) / (math.sqrt(2) * SIGMA * GRID))
        assert table[j] / 2**62 == pytest.approx(share, abs=1e-15)
    assert (np.diff(table) >= 0).all()


def test_noisy_images_are_whole_steps_whatever_the_image_and_the_cut() -> None:
    image = torch.randint(0, 17, (1, 4, 4), generator=torch.Generator().manual_seed(0)) / 16
    noisy = drawn(130, image)
    steps = noisy.double() * GRID
    assert torch.equal(steps, steps.round())
    assert torch.equal(torch.cat([drawn(50, image), drawn(80, image, 50)]), noisy)
    shift = drawn(130, image + 1 / 16) - noisy
    assert torch.equal(shift, torch.full_like(shift, 1 / 16))  # one noise for all images


def test_images_without_grey_levels_are_refused() -> None:
    with pytest.raises(BadInput, match="no whole grey levels"):
        find_grid(torch.full((1, 1, 2, 2), 0.1234))


class Reachable(nn.Module):
    """Class 1 if every pixel is the float32 product of sigma and some float32.

    With normal noise that is so for a black image, always, and for any other one almost never.
    """

    sigma = torch.tensor(SIGMA)

    def forward(self, noisy: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        near = noisy / self.sigma
        steps = (near, near.nextafter(near + 1), near.nextafter(near - 1))
        hit = torch.stack([each * self.sigma == noisy for each in steps]).any(0)
        value = hit.flatten(1).all(1).to(noisy.dtype)
        return torch.stack([0.5 - value, value - 0.5], dim=1)


def reachable() -> nn.Module:
    return Reachable().eval()


def test_a_certificate_of_normal_noise_is_broken_within_its_radius_and_one_of_the_grid_holds(
    tmp_path: Path,
) -> None:
    black, grey = torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 1 / 16)
    distance = float((grey - black).norm())
    images, labels = torch.cat([black, grey]).numpy(), np.array([1, 1])
    np.savez(tmp_path / "two.npz", images=images, labels=labels, classes=np.array(["no", "yes"]))
    certificates = {}
    for noise in ("normal", "grid"):
        study = Certification(
            dataset=str(tmp_path / "two.npz"),
            defense="none",
            classifier=f"{__file__}:reachable",
            sigmas=SIGMA,
            samples=2000,
            selection=100,
            noise=noise,  # type: ignore[arg-type]
        )
        (curve,) = study.run(out=tmp_path / noise).curves
        certificates[noise] = dict(
            zip(curve.images.ids.tolist(), zip(curve.images.predictions.tolist(),
                curve.images.radii.tolist(), strict=True), strict=True)
        )  # fmt: skip
    (at_black, radius), (at_grey, _) = certificates["normal"][0], certificates["normal"][1]
    assert at_black == 1
    assert radius > distance
    assert at_grey == 0  # another class within the radius: the certificate is wrong
    (at_black, radius), (at_grey, other) = certificates["grid"][0], certificates["grid"][1]
    assert radius < distance or at_black == at_grey
    assert other < distance or at_black == at_grey
