"""``rrcm``: add noise, and leave it to a classifier that receives the noise level.

There is no denoiser: the representation behind the classifier was trained to be the same along a
diffusion trajectory. As a purifier alone it only adds the noise.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from advpure.core.chain import Chain
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import NoiseStrength, smooth


@dataclass(frozen=True, kw_only=True)
class RepresentationConsistency(NoiseStrength):
    """Add noise sigma for a classifier that receives its level [Lei2025].

    Attributes:
        nodes: Number of nodes N that the classifier must have been trained with; by default the
            one that is stored with its weights.
    """

    network: ClassVar[str | None] = None
    levelled: ClassVar[bool] = True
    nodes: Annotated[int, Ge(2), Le(100_000)] | None = None

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the noise."""
        return Chain([smooth(self.level)])
