"""The randomness of a training: a pure function of the seed and the step."""

import hashlib

import torch


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
