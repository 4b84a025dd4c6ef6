"""SSIM: closed forms, an independent writing in numpy, torchmetrics as oracle, the gradient."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from advpure.analysis.metrics.ssim import ssim, ssim_window
from advpure.base.errors import BadInput

C1, C2 = 0.01**2, 0.03**2


def test_equal_images_have_one(pictures: Callable[..., Tensor]) -> None:
    x = pictures(3, 3, 32, 32)
    assert ssim(x, x).tolist() == [1.0, 1.0, 1.0]
    assert (ssim(x, pictures(3, 3, 32, 32, seed=1)) < 0.5).all()


def test_a_constant_shift_changes_the_luminance_term_alone() -> None:
    a, b = 0.3, 0.45
    flat = torch.full((1, 1, 16, 16), a, dtype=torch.float64)
    expected = (2 * a * b + C1) / (a**2 + b**2 + C1)
    found = ssim(flat, flat + (b - a)).item()
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_constant_shift_of_a_picture_is_the_mean_of_the_luminance_terms(
    pictures: Callable[..., Tensor],
) -> None:
    x = 0.6 * pictures(1, 1, 24, 24, dtype=torch.float64)
    means = blur(x[0, 0].numpy())
    expected = ((2 * means * (means + 0.2) + C1) / (means**2 + (means + 0.2) ** 2 + C1)).mean()
    assert ssim(x, x + 0.2).item() == pytest.approx(expected, rel=1e-9)


def test_opposite_contrast_is_negative() -> None:
    x = (torch.arange(16 * 16).reshape(1, 1, 16, 16) % 2).double()  # stripes of 0 and 1
    assert ssim(x, 1.0 - x).item() < -0.9


def blur(image: npt.NDArray[np.float64], side: int = 11) -> npt.NDArray[np.float64]:
    places = np.arange(side) - side // 2
    bell = np.exp(-(places**2) / (2 * 1.5**2))
    bell /= bell.sum()
    full = correlate1d(correlate1d(image, bell, axis=0), bell, axis=1)
    cut = side // 2
    found: npt.NDArray[np.float64] = full[cut:-cut, cut:-cut]
    return found


@pytest.mark.parametrize(("side", "window"), [(32, 11), (8, 7), (11, 11)])
def test_numpy_gives_the_same(pictures: Callable[..., Tensor], side: int, window: int) -> None:
    x = pictures(2, 3, side, side, dtype=torch.float64)
    y = (x + 0.2 * pictures(2, 3, side, side, seed=1, dtype=torch.float64)).clamp(0, 1)
    assert ssim_window(side, side) == window
    for row, found in enumerate(ssim(x, y).tolist()):
        each = []
        for channel in range(3):
            a, b = x[row, channel].numpy(), y[row, channel].numpy()
            m, k = blur(a, window), blur(b, window)
            va, vb = blur(a * a, window) - m * m, blur(b * b, window) - k * k
            both = blur(a * b, window) - m * k
            top = (2 * m * k + C1) * (2 * both + C2)
            each.append((top / ((m * m + k * k + C1) * (va + vb + C2))).mean())
        assert found == pytest.approx(np.mean(each), rel=1e-10)


@pytest.mark.slow  # its import takes seconds
def test_torchmetrics_gives_the_same(pictures: Callable[..., Tensor]) -> None:
    library = pytest.importorskip("torchmetrics.functional.image")
    x = pictures(4, 3, 32, 32)
    y = (x + 0.1 * pictures(4, 3, 32, 32, seed=1)).clamp(0, 1)
    _, maps = library.structural_similarity_index_measure(
        x.double(), y.double(), data_range=1.0, reduction="none", return_full_image=True
    )
    # Its own mean takes in the border, where the image is reflected; Wang et al. leave that out.
    expected = maps[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    assert ssim(x, y).tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_the_gradient_is_right(pictures: Callable[..., Tensor]) -> None:
    x = pictures(1, 1, 8, 8, dtype=torch.float64).requires_grad_(True)
    y = pictures(1, 1, 8, 8, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: ssim(z, y), (x,))


def test_windows_and_shapes_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(1, 1, 8, 8)
    odd, whole = "is not odd, or does not fit", "is not a whole number of 1 or more"
    for window, rule in ((4, odd), (9, odd), (0, whole)):
        with pytest.raises(BadInput, match=f"window {window} {rule}"):
            ssim(x, x, window)
    with pytest.raises(BadInput, match="are not two equal"):
        ssim(x, torch.zeros(1, 1, 8, 9))
    assert ssim_window(1, 5) == 1
