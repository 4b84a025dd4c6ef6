"""What may stand behind a purifier's chain: a last step with a network of its own."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from advpure.core.chain import Chain, Step


class Refiner(nn.Module):
    """A step that follows whatever a purifier does. Subclasses write `step`.

    Args:
        network: The network behind the step, images in [0, 1] in; registered, so that `.to()`
            reaches it.
        settings: What identifies the step in records, JSON values.
    """

    def __init__(self, network: nn.Module, settings: Mapping[str, Any]) -> None:
        """Keep the parts."""
        super().__init__()
        self.network, self.settings = network, dict(settings)

    def step(self) -> Step:
        """Make the step."""
        raise TypeError(f"{type(self).__name__} is abstract: write step()")


def refined(chain: Chain, refiner: Refiner | None) -> Chain:
    """Return a chain with the step of a refiner behind it, where there is one."""
    return chain if refiner is None else chain + Chain([refiner.step()])
