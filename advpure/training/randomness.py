"""The randomness of a training: a pure function of the seed and the step."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def step_generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a new CPU generator for one purpose.

    Args:
        seed: The recipe's seed.
        names: What the draws are for, for example "step", 17.

    Returns:
        A generator in a state that depends on nothing else, so a resumed run draws what an
        uninterrupted one would.

    Example:
        >>> a, b = step_generator(0, "step", 1), step_generator(0, "step", 1)
        >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
        True
    """
    text = repr((seed, *names)).encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    return torch.Generator().manual_seed(key)


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw standard normal values, float32 on the CPU."""
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw values uniformly from [0, 1), float32 on the CPU."""
    return torch.rand(*shape, generator=generator, dtype=torch.float32, device="cpu")


def integers(low: int, high: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw integers uniformly from low .. high - 1, int64 on the CPU."""
    size = tuple(shape)
    return torch.randint(low, high, size, generator=generator, dtype=torch.int64, device="cpu")
