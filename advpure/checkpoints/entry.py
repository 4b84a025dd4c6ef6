"""What a registered checkpoint is: where it comes from, what it must be, how it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advpure.checkpoints.layout import Layout
from advpure.networks.named_tensors import Weights, check_kinds

Reader = Literal["tensors", "edm", "flax", "score-sde", "robustness"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An official checkpoint.

    Attributes:
        name: What users type.
        about: One line.
        kind: ``denoiser`` or ``classifier``.
        dataset: What it was trained on.
        source: Where to obtain it: an address, or ``hf:OWNER/NAME/FILE`` on the model hub.
        licence: Licence of the weights as their source states it.
        parameters: Official number of parameters.
        tensors: Number of tensors in the official file.
        quality: Published quality, with its measure.
        build: Makes the network from `config`.
        layout: Names its official tensors.
        config: The network's shape.
        adapt: Wraps the network for its use.
        reader: The format of the official file, beside safetensors.
        weights: Which weights it is evaluated with, where a file has both: averaged (``ema``) ones
            or ``raw`` ones.
        aliases: Pairs of a pattern and its replacement, applied to the file's names in turn.
        checksum: ``md5:...`` or ``sha256:...`` of the official file, if published.
        bytes: Size of the official file, if known.
        accuracy: Published accuracy of a classifier, in per cent.
        proof: Name of the stored outputs of the official code that this network must reproduce.
        memory_format: The layout of the network's convolutions.
    """

    name: str
    about: str
    kind: Literal["denoiser", "classifier"]
    dataset: str
    source: str
    licence: str
    parameters: int
    tensors: int
    quality: str
    build: Callable[[Any], nn.Module]
    layout: Callable[[nn.Module, Any], Layout]
    config: Any
    adapt: Callable[[nn.Module], nn.Module]
    proof: str
    reader: Reader = "tensors"
    weights: Weights = "ema"
    aliases: tuple[tuple[str, str], ...] = ()
    checksum: str | None = None
    bytes: int | None = None
    accuracy: float | None = None
    memory_format: torch.memory_format = torch.channels_last

    def skeleton(self) -> tuple[nn.Module, Layout]:
        """Build the network without memory, and its layout."""
        with torch.device("meta"):
            network = self.build(self.config)
        return network, self.layout(network, self.config)

    def network(self, tensors: dict[str, Tensor]) -> nn.Module:
        """Build the network around tensors, copied where their layout is another.

        Args:
            tensors: Every tensor of the network by its name there.

        Returns:
            The network, float32, in evaluation mode, parameters without gradients.

        Raises:
            BadInput: for whole numbers where the network has real ones, or the other way round.
        """
        network, _ = self.skeleton()
        check_kinds(tensors, network.state_dict(), self.name)
        network.load_state_dict(tensors, assign=True)
        if any(buffer.is_meta for buffer in network.buffers()):
            # Constants that are computed, not stored: let the constructor compute them.
            with torch.random.fork_rng(devices=[]):
                network = self.build(self.config)
            network.load_state_dict(tensors, assign=True)
        network = network.to(memory_format=self.memory_format)
        return network.eval().requires_grad_(False)
