"""Exact denoisers of data whose score is known: Gaussian, Gaussian mixture, a finite data set.

They satisfy the same contract as a network, so every sampler and attack can be checked against a
closed form. All are differentiable, in the dtype of their input, and stable for any sigma > 0.
"""

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.core.denoisers import Denoiser, Prediction, _column


class GaussianDenoiser(Denoiser):
    """Posterior mean of Gaussian data: D(x; s) = mu + Sigma (Sigma + s^2 I)^-1 (x - mu).

    Args:
        mean: Mean of the data in model units, [C, H, W].
        covariance: Variance of every pixel: one number or [C, H, W]; or a full covariance [d, d].
    """

    def __init__(self, mean: Tensor, covariance: Tensor | float) -> None:
        """Diagonalise a full covariance once; see the class."""
        super().__init__()
        self.register_buffer("mean", mean.double())
        matrix = torch.as_tensor(covariance, dtype=torch.float64, device=mean.device)
        basis = None
        if matrix.shape == (mean.numel(), mean.numel()) and mean.numel() > 1:
            matrix, basis = torch.linalg.eigh(matrix)
        elif matrix.ndim and matrix.shape != mean.shape:
            raise BadInput(
                f"a covariance of shape {tuple(matrix.shape)}",
                f"does not fit a mean of shape {tuple(mean.shape)}",
                "give one variance, one a pixel, or [d, d]",
            )
        if float(matrix.min()) < -1e-9:
            raise BadInput("a covariance", "has a negative eigenvalue", "give a valid covariance")
        self.register_buffer("variances", matrix.clamp(min=0))
        self.register_buffer("basis", basis)

    mean: Tensor
    variances: Tensor
    basis: Tensor | None

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Shrink every principal direction by its own signal share, in float64 inside."""
        wide = x.double()
        s = _column(sigma, wide)
        centred = wide - self.mean
        if self.basis is None:
            share = self.variances / (self.variances + s**2)
            return Prediction((self.mean + share * centred).to(x.dtype))
        share = self.variances / (self.variances + s.reshape(-1, 1) ** 2)
        rotated = (centred.flatten(1) @ self.basis) * share
        return Prediction((self.mean + (rotated @ self.basis.T).reshape(x.shape)).to(x.dtype))


class MixtureDenoiser(Denoiser):
    """Posterior mean under a mixture of isotropic Gaussians; variance 0 gives a finite data set.

    D(x; s) = sum_k r_k (m_k + v_k / (v_k + s^2) (x - m_k)), with responsibilities
    r_k proportional to w_k N(x; m_k, (v_k + s^2) I), computed in log space.

    Args:
        means: Component means in model units, [K, C, H, W].
        variances: Component variances, [K] or one for all.
        weights: Component weights, [K], positive; equal by default.

    Cost: K distances per image, without forming [B, K, d] for more than `chunk` components.
    """

    chunk = 256
    means: Tensor
    variances: Tensor
    log_weights: Tensor

    def __init__(
        self, means: Tensor, variances: Tensor | float = 0.0, weights: Tensor | None = None
    ) -> None:
        """Check the components; see the class."""
        super().__init__()
        count = means.shape[0]
        spread = (
            torch.as_tensor(variances, dtype=torch.float64, device=means.device)
            .expand(count)
            .clone()
        )
        share = means.new_ones(count, dtype=torch.float32) if weights is None else weights
        if not count or float(spread.min()) < 0 or share.shape != (count,) or share.min() <= 0:
            raise BadInput(
                f"a mixture of {count} components",
                "is not valid",
                "give K means, variances >= 0, weights > 0",
            )
        self.register_buffer("means", means.double())
        self.register_buffer("variances", spread)
        self.register_buffer("log_weights", share.double().log() - share.double().sum().log())

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Average the components' posterior means by responsibility, in float64 inside."""
        wide = x.double()
        s = _column(sigma, wide)
        total = self.variances + s.reshape(-1, 1) ** 2  # [1 or B, K]
        scores = self.log_weights - 0.5 * wide[0].numel() * total.log()
        scores = scores - 0.5 * self._distances(wide) / total
        share = torch.softmax(scores, dim=1)  # [B, K]
        keep = self.variances / total
        pulled = (share * (1 - keep)) @ self.means.flatten(1)
        kept = (share * keep).sum(1, keepdim=True) * wide.flatten(1)
        return Prediction((pulled + kept).reshape(x.shape).to(x.dtype))

    def _distances(self, x: Tensor) -> Tensor:
        """Squared distances to every mean, [B, K], from differences: exact when they are small."""
        parts = torch.split(self.means, self.chunk)
        return torch.cat([(x.unsqueeze(1) - part).flatten(2).square().sum(2) for part in parts], 1)


def empirical_denoiser(images: Tensor) -> MixtureDenoiser:
    """Make the exact denoiser of a finite data set.

    Args:
        images: The data set in model units, [K, C, H, W], every image equally likely.
    """
    return MixtureDenoiser(images, 0.0)
