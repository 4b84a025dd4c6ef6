"""Networks made faster: in bfloat16 where that is safe, and captured by torch.compile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is a gain on a device.

    Args:
        device: Where the network runs.

    Returns:
        False for a CPU without AVX-512, whose convolutions emulate it over a hundred times slower.
    """
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"


class InBfloat16(nn.Module):
    """Run a network in bfloat16 where that is safe, and return float32.

    Args:
        network: The network.
        enabled: False makes this a plain call.
    """

    def __init__(self, network: nn.Module, enabled: bool) -> None:
        """Wrap the network."""
        super().__init__()
        self.network, self.enabled = network, enabled

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Call the network."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.enabled):
            out: Tensor = self.network(x, *condition)
        return out.float()


@contextmanager
def unwrapped(network: nn.Module) -> Iterator[Any]:
    """Give the network behind the wrapper, to call its methods in the precision it is meant for.

    What they return is in that precision: call `float()` on it before a loss.
    """
    inner = network.network if isinstance(network, InBfloat16) else network
    enabled = isinstance(network, InBfloat16) and network.enabled
    kind = next(inner.parameters()).device.type
    with torch.autocast(kind, torch.bfloat16, enabled=enabled):
        yield inner


def capture(network: nn.Module) -> None:
    """Let torch.compile capture the calls of a network, in place; its state stays as it is.

    Args:
        network: On a GPU it becomes kernels, elsewhere the operations that it has. Of an encoder
            with heads the encoder is captured; copies that are made afterwards share it.
    """
    kind = next(network.parameters()).device.type
    part = "encode" if hasattr(network, "encode") else "forward"
    backend = "inductor" if kind == "cuda" else "eager"
    setattr(network, part, torch.compile(getattr(network, part), backend=backend))


@contextmanager
def captured_where_possible(enabled: bool) -> Iterator[None]:
    """Let what torch.compile cannot capture run as it is.

    Args:
        enabled: False does nothing, and imports nothing.
    """
    if not enabled:
        yield
        return
    import torch._dynamo

    with torch._dynamo.config.patch(suppress_errors=True):
        yield
