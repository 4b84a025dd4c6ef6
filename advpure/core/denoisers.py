"""The one contract of every network: D(x; sigma) -> x0.

x = x0 + sigma z is a variance-exploding state in model units (images in [-1, 1]), D estimates x0.
Samplers see only this, so one network serves every sampler. The adapters below turn the three kinds
of published networks into it.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.imports import explain
from advpure.base.registry import Registry
from advpure.base.validation import Range, number
from advpure.core.schedules import Schedule


class Prediction(NamedTuple):
    """What a network says about a state.

    Attributes:
        x0: The denoised image, model units, [B, C, H, W].
        variance: For networks that learn the reverse variance, its place between the posterior
            variance (-1) and beta (+1), [B, C, H, W]; None for all others.
    """

    x0: Tensor
    variance: Tensor | None = None


class Denoiser(nn.Module):
    """Estimate the clean image of a noisy state. Subclasses write `predict`.

    Attributes:
        sigma_min: The smallest noise level the network was made for, model units.
        sigma_max: The largest.
    """

    sigma_min: float = 0.0
    sigma_max: float = math.inf

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor: ...  # noqa: D102

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Return everything the network says about the state."""
        raise TypeError(f"{type(self).__name__} is abstract: write predict()")

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise.

        Args:
            x: Noisy state x0 + sigma z in model units, [B, C, H, W].
            sigma: Noise level in model units, one for all rows or [B].

        Returns:
            The estimate of x0, [B, C, H, W].

        Raises:
            BadInput: for a number that is no noise level; the values of a tensor are not read.
        """
        if not isinstance(sigma, Tensor) and not 0 < sigma < math.inf:
            raise BadInput(f"sigma {sigma}", "is not positive and finite", "write for example 0.5")
        return self.predict(x, sigma).x0


class FunctionDenoiser(Denoiser):
    """A function of somebody's own as a denoiser.

    Args:
        function: A state [B, C, H, W] and a noise level, both in model units, to the estimate x0.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Wrap the function, registered where it is a module."""
        super().__init__()
        self.function: Any = function
        self.training = False

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Return the estimate.

        Raises:
            BadInput: for a function that fails, or answers with no estimate of the state.
        """
        fix = "let it take both, and return the estimate of the clean state"
        try:
            found = self.function(x, sigma)
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(self._asked(x), f"fails ({explain(error)})", fix) from error
        if not isinstance(found, Tensor):
            raise BadInput(self._asked(x), f"answers with a {type(found).__name__}", fix)
        if found.shape != x.shape or not found.is_floating_point() or found.device != x.device:
            kind = str(found.dtype).removeprefix("torch.")
            rule = f"answers with {[*found.shape]} of {kind} on {found.device}"
            raise BadInput(self._asked(x), rule, fix)
        return Prediction(found.to(x.dtype))

    def _asked(self, x: Tensor) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"denoiser {name} given a state {[*x.shape]} and a noise level"


def checked_range(levels: Mapping[str, Any]) -> dict[str, float]:
    """Return sigma_data, sigma_min and sigma_max, model units, as numbers.

    Raises:
        BadInput: unless 0 < sigma_data <= 100 and 0 < sigma_min < sigma_max, all finite.

    Example:
        >>> checked_range({"sigma_data": -1, "sigma_min": 0.002, "sigma_max": 80})
        Traceback (most recent call last):
        ...
        advpure.BadInput: sigma_data -1 is not above 0 and 100 or less; choose one in that range
    """
    checked: dict[str, float] = {}
    for name in ("sigma_data", "sigma_min", "sigma_max"):
        above = checked["sigma_min"] if name == "sigma_max" else 0.0
        most = 100.0 if name == "sigma_data" else None  # images span 2
        checked[name] = number(levels.get(name), name, Range(above=above, most=most))
    return checked


def check_covered(denoiser: nn.Module | None, name: str, sigma: float) -> None:
    """Refuse a noise level that a denoiser was not made for.

    Args:
        denoiser: The purifier's network, if any.
        name: The network's name.
        sigma: Standard deviation of the noise, [0, 1] units.

    Raises:
        BadInput: naming the range that it covers, in [0, 1] units.
    """
    if not isinstance(denoiser, Denoiser):
        return
    low, high = denoiser.sigma_min / 2, denoiser.sigma_max / 2
    if not low <= sigma <= high:
        ends = f"{low:.4g} to {high:.4g}" if math.isfinite(high) else f"{low:.4g} or more"
        raise BadInput(
            f"sigma {sigma:g}",
            f"is outside what the denoiser {name} covers, {ends} in [0, 1] units",
            "choose a level within, or other --weights",
        )


def network_inputs(x: Tensor, s: float | Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """Return what a network takes for a state: c_in x = x / sqrt(s^2 + sigma_data^2), ln(s) / 4.

    Args:
        x: States [B, C, H, W], model units.
        s: Their noise level in model units: a number, or [1 or B, 1, 1, 1].
        sigma_data: Standard deviation of the data in model units.

    Returns:
        The scaled states, and the noise condition [B].

    Source: [Karras2022], table 1.
    """
    if isinstance(s, Tensor):
        condition = (s.log() / 4).flatten().expand(x.shape[0])
    else:
        condition = x.new_full((1,), math.log(s) / 4).expand(x.shape[0])
    return x * (s**2 + sigma_data**2) ** -0.5, condition


class EDMDenoiser(Denoiser):
    """D(x; s) = c_skip x + c_out F(c_in x, ln(s) / 4), the preconditioning of EDM.

    Args:
        network: F, mapping a scaled state [B, C, H, W] and a noise condition [B] to [B, C, H, W].
        sigma_data: Standard deviation of the data in model units.
        sigma_min: Smallest trained noise level, model units.
        sigma_max: Largest.

    Source: [Karras2022], table 1.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        """Wrap the network; see the class.

        Raises:
            BadInput: unless 0 < sigma_data and 0 < sigma_min < sigma_max, all finite.
        """
        super().__init__()
        self.network = network
        levels = {"sigma_data": sigma_data, "sigma_min": sigma_min, "sigma_max": sigma_max}
        checked = checked_range(levels)
        self.sigma_data = checked["sigma_data"]
        self.sigma_min, self.sigma_max = checked["sigma_min"], checked["sigma_max"]

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Denoise; see the class for the equation. One level for all rows costs no tensor."""
        s: Any = _column(sigma, x) if isinstance(sigma, Tensor) else float(sigma)
        skip, out = self.weights(s)
        return Prediction(skip * x + out * self.network(*network_inputs(x, s, self.sigma_data)))

    def weights(self, s: Any) -> tuple[Any, Any]:
        """Return c_skip and c_out at a noise level, a number or [1 or B, 1, 1, 1]."""
        total = s**2 + self.sigma_data**2
        return self.sigma_data**2 / total, s * self.sigma_data / total**0.5


class ConsistencyDenoiser(EDMDenoiser):
    """Map a state to the origin of its trajectory, with the boundary condition f(x, s_min) = x.

    The coefficients use s - s_min, so at s = s_min, c_skip = 1 and c_out = 0 for any network.

    Source: [Song2023], appendix C.
    """

    def weights(self, s: Any) -> tuple[Any, Any]:
        """Return c_skip and c_out, shifted to keep the boundary condition."""
        total, shifted = s**2 + self.sigma_data**2, s - self.sigma_min
        skip = self.sigma_data**2 / (shifted**2 + self.sigma_data**2)
        return skip, self.sigma_data * shifted / total**0.5


class EpsilonDenoiser(Denoiser):
    """Turn a noise-predicting network of a discrete schedule into D(x; sigma).

    The state is scaled to variance-preserving form, the network is asked at the time whose noise
    level is sigma (interpolated between indices, exact at them), and x0 = x - sigma epsilon.

    Args:
        network: Maps a state [B, C, H, W] and a time [B] to epsilon, [B, C, H, W], or to epsilon
            and a variance channel block, [B, 2C, H, W] (improved diffusion).
        schedule: The schedule that it was trained on.
        time_scale: Factor from index to network time: 1, or 1000 / T where time is rescaled.
        learned_variance: Whether the network returns 2C channels.

    Source: [Ho2020] for the state and the prediction, [Nichol2021] for the variance channels.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[Tensor, Tensor], Tensor],
        schedule: Schedule,
        *,
        time_scale: float = 1.0,
        learned_variance: bool = False,
    ) -> None:
        """Wrap the network; see the class."""
        super().__init__()
        self.network, self.schedule = network, schedule
        self.time_scale, self.learned_variance = time_scale, learned_variance
        self.sigma_min, self.sigma_max = float(schedule.sigmas[0]), float(schedule.sigmas[-1])

    def index(self, sigma: float) -> float:
        """Return the (fractional) index of a noise level in model units.

        Within 1e-3 of an index it is that index: a level rounded to float32 misses by up to
        6e-8 / 8e-4, the rounding over the smallest relative distance of two levels.
        """
        exact = self.schedule.time_of_sigma(sigma) * len(self.schedule) - 1
        return float(round(exact)) if abs(exact - round(exact)) < 1e-3 else exact

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Denoise by removing the predicted noise."""
        s = _column(sigma, x)
        # From the level as given: rounded to the dtype of x it would miss its index.
        levels = sigma.flatten().tolist() if isinstance(sigma, Tensor) else [float(sigma)]
        indices = [self.index(level) * self.time_scale for level in levels]
        time = torch.tensor(indices, dtype=x.dtype, device=x.device).expand(x.shape[0])
        output = self.network(x / (1 + s**2) ** 0.5, time)
        if not self.learned_variance:
            return Prediction(x - s * output)
        epsilon, variance = output.chunk(2, dim=1)
        return Prediction(x - s * epsilon, variance)


DENOISERS: Registry[type[Denoiser]] = Registry("kind of denoiser")
"""What the `task` of a weights file means. A new kind is one file and one line here.

The class is called with the file's network and, by name, with those numbers of the file's metadata
that its keyword-only arguments ask for.
"""
DENOISERS.register("edm", EDMDenoiser, about="EDM's preconditioning")
DENOISERS.register("consistency", ConsistencyDenoiser, about="consistency function")


def _column(sigma: float | Tensor, x: Tensor) -> Tensor:
    """Return sigma as [1 or B, 1, 1, 1] in the dtype and on the device of x."""
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if s.ndim == 0:
        return s.reshape(1, *[1] * (x.ndim - 1))
    if s.shape != (x.shape[0],):
        raise BadInput(
            f"sigma of shape {tuple(s.shape)}",
            f"does not fit {x.shape[0]} states",
            "give [B] or one",
        )
    return s.reshape(-1, *[1] * (x.ndim - 1))
