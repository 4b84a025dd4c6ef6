"""How the tensors of an official file become the tensors of our network.

A layout names, for every tensor of the network, the official tensors it is made from, their shapes
and the rearrangement. Because the shapes follow from the network alone, a file can be checked key
by key before a single number is moved, and official parameters can be counted without a file.
"""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.networks.named_tensors import COUNTERS

Shape = tuple[int, ...]
Order = Literal["parts", "heads", "interleaved"]


class Source(NamedTuple):
    """Where one tensor of the network comes from.

    Attributes:
        names: The official tensors, in the order that `make` takes them.
        shapes: Their shapes.
        make: Maps them to the network's tensor.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    make: Callable[..., Tensor]


@dataclass(frozen=True)
class Layout:
    """The official names of a network.

    Args:
        sources: For every tensor of the network, by its name there, the official tensors.
        unused: Official tensors that the network does without, with their shapes.
        buffers: Pattern of official names that count as constants, not as parameters.
    """

    sources: Mapping[str, Source]
    unused: Mapping[str, Shape] = field(default_factory=dict)
    buffers: str = r"running_|num_batches_tracked"

    def official(self) -> dict[str, Shape]:
        """Return every official name with its shape."""
        named = {
            name: shape
            for source in self.sources.values()
            for name, shape in zip(source.names, source.shapes, strict=True)
        }
        return named | dict(self.unused)

    def parameters(self, present: Container[str] | None = None) -> int:
        """Count the official parameters, all or only those of the tensors that are present."""
        constant = re.compile(self.buffers)
        return sum(
            prod(shape)
            for name, shape in self.official().items()
            if not constant.search(name) and (present is None or name in present)
        )


class KeyReport(NamedTuple):
    """What is wrong with a file's tensors; three empty lists when nothing is.

    Attributes:
        missing: Official names that the file lacks.
        unexpected: Names of the file that the layout does not know.
        misshapen: Lines "name: (its shape), not (the official one)".
    """

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def __bool__(self) -> bool:
        """Return True if anything is wrong."""
        return any(self)


def compare(layout: Layout, state: Mapping[str, Tensor]) -> KeyReport:
    """Compare a file's tensors with a layout; unused ones and counters may be absent."""
    official = layout.official()
    optional = {name for name in official if name in layout.unused or COUNTERS.search(name)}
    return KeyReport(
        [name for name in official if name not in state and name not in optional],
        [name for name in state if name not in official],
        [
            f"{name}: {tuple(state[name].shape)}, not {shape}"
            for name, shape in official.items()
            if name in state and tuple(state[name].shape) != shape
        ],
    )


def assemble(layout: Layout, state: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Make the network's tensors from official ones.

    Args:
        layout: The layout.
        state: The official tensors by name.
        owner: The entry's name, for the message.

    Returns:
        The network's tensors by name, floating ones as float32.

    Raises:
        BadInput: naming the first tensor that is missing, unexpected or of a wrong shape, and how
            many more there are.
    """
    report = compare(layout, state)
    faults = [
        *[(f"tensor {name!r}", f"of {owner} is missing from the file") for name in report.missing],
        *[
            (f"tensor {line.partition(':')[0]!r}", f"has shape{line.partition(':')[2]}, in {owner}")
            for line in report.misshapen
        ],
        *[(f"tensor {name!r}", f"is unknown to {owner}") for name in report.unexpected],
    ]
    if faults:
        subject, rule = faults[0]
        more = f" ({len(faults) - 1} more differ)" if len(faults) > 1 else ""
        raise BadInput(subject, rule + more, "check that the file is the one of this entry")
    made = {}
    zero = torch.zeros((), dtype=torch.long)  # of the counters that a file leaves out
    for target, source in layout.sources.items():
        value = source.make(*[state.get(name, zero) for name in source.names])
        made[target] = value.float() if value.is_floating_point() else value
    return made


def same(name: str, tensor: Tensor) -> Source:
    """Take an official tensor of the same shape."""
    return Source((name,), (tuple(tensor.shape),), _copy)


def reshaped(name: str, tensor: Tensor, *trailing: int) -> Source:
    """Take an official tensor with other trailing dimensions of size one."""
    target = tuple(tensor.shape)
    shape = (*target[:2], *trailing) if tensor.ndim > 1 else target
    return Source((name,), (shape,), lambda value: value.reshape(target))


def permuted(name: str, tensor: Tensor, order: tuple[int, ...]) -> Source:
    """Take an official tensor whose axes come in another order.

    Args:
        name: The official name.
        tensor: The network's tensor.
        order: Which official axis becomes each axis of the network's tensor.
    """
    shape = [0] * tensor.ndim
    for axis, origin in enumerate(order):
        shape[origin] = tensor.shape[axis]
    return Source((name,), (tuple(shape),), lambda value: value.permute(order).contiguous())


def constant(value: Tensor) -> Source:
    """Fill in a tensor that official files leave out."""
    return Source((), (), value.clone)


def stacked(names: Iterable[str], tensor: Tensor) -> Source:
    """Stack official tensors along the first axis."""
    chosen = tuple(names)
    shape = (tensor.shape[0] // len(chosen), *tensor.shape[1:])
    return Source(chosen, (shape,) * len(chosen), lambda *values: torch.cat(values))


def part(name: str, tensor: Tensor, k: int, order: Order, heads: int, *trailing: int) -> Source:
    """Cut the query (k = 0), key (1) or value (2) out of an official joint projection.

    Joint projections differ in how their 3C output channels are ordered, and every order has the
    same shape, so a wrong one loads silently:

    * ``parts``: all queries, all keys, all values, each with its heads in turn;
    * ``heads``: head by head, in each its queries, keys and values;
    * ``interleaved``: channel by channel, each with its query, key and value.

    Args:
        name: The official name.
        tensor: The network's tensor, [C, C] or [C].
        k: Which of the three.
        order: The official order.
        heads: Number of heads.
        trailing: Trailing dimensions of the official weight, 1 or 1, 1.

    Example:
        >>> joint = torch.arange(6.0)  # C = 2 with one channel a head
        >>> [part("b", torch.zeros(2), 0, order, 2).make(joint).tolist()
        ...  for order in ("parts", "heads", "interleaved")]
        [[0.0, 1.0], [0.0, 3.0], [0.0, 3.0]]
    """
    width = tensor.shape[0]
    inner = tuple(tensor.shape[1:])
    shape = (3 * width, *inner, *trailing) if inner else (3 * width,)

    def make(joint: Tensor) -> Tensor:
        each = width // heads
        if order == "parts":
            split = joint.reshape(3, width, *inner)[k]
        elif order == "heads":
            split = joint.reshape(heads, 3, each, *inner)[:, k]
        else:
            split = joint.reshape(heads, each, 3, *inner)[:, :, k]
        return split.reshape(tuple(tensor.shape)).contiguous()

    return Source((name,), (shape,), make)


def identity(network: nn.Module) -> Layout:
    """Lay out a network whose own names are the official ones."""
    return Layout({name: same(name, value) for name, value in network.state_dict().items()})


def _copy(value: Tensor) -> Tensor:
    return value
