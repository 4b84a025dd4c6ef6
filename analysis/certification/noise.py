"""The noise of sample k of image i: a pure function of (seed, stage, image, k), drawn in chunks.

One normal a sample would cost more than a small network's answer, so 64 samples of an image are
one draw of the stream keyed by (image, chunk); sample k is row k mod 64 of chunk k div 64. Neither
the batch nor the block in which a sample is classified, nor shards or their order, change it.

The same z serves every noise level and every defense, so differences between them are paired. The
selection stage and the estimation stage draw from different folds, as the certificate needs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from advpure.core.randomness import Phase, RandomnessConfig

CHUNK = 64
"""Samples per draw; part of what the noise is."""


def stage_xi(xi: RandomnessConfig, stage: str) -> RandomnessConfig:
    """Return what a stage of the certificate draws from."""
    return xi.fold("certify", stage)


def chunk_noise(
    xi: RandomnessConfig,
    image: int,
    chunk: int,
    shape: Sequence[int],
    phase: Phase = "forward",
    time: int = 0,
) -> Tensor:
    """Return the noise of 64 consecutive samples of one image, [64, *shape], on the CPU.

    Example:
        >>> chunk_noise(RandomnessConfig(0), 3, 0, (1, 2, 2)).shape
        torch.Size([64, 1, 2, 2])
    """
    # Every chunk is used once or twice; keeping it would cost more than drawing it.
    return xi.normal([image], phase, time, (CHUNK, *shape), draw=chunk, cached=False)[0]


class SampleNoise:
    """The noise of consecutive samples, written where it is used.

    Attributes:
        xi: The stage's configuration.
    """

    def __init__(self, xi: RandomnessConfig) -> None:
        """Begin with nothing drawn."""
        self.xi = xi
        self._key: tuple[int, int] | None = None
        self._chunk = torch.empty(0, dtype=torch.float32, device="cpu")

    def fill(self, out: Tensor, image: int, first: int) -> None:
        """Write the noise of the samples first, first + 1, ... of an image.

        Args:
            out: Where to, [n, *shape], contiguous float32 on the CPU.
            image: The image's id.
            first: Number of the first sample.
        """
        at = 0
        while at < len(out):
            chunk, row = divmod(first + at, CHUNK)
            rows = out[at : at + CHUNK - row]
            if len(rows) == CHUNK:
                self.xi.normal_into(rows, image, "forward", 0, draw=chunk)
            else:
                rows.copy_(self._part(image, chunk, out.shape[1:])[row : row + len(rows)])
            at += len(rows)

    def _part(self, image: int, chunk: int, shape: torch.Size) -> Tensor:
        """Return a chunk that is used in parts, which mostly follow each other."""
        if self._key != (image, chunk):
            if self._chunk.shape[1:] != shape:
                self._chunk = torch.empty((CHUNK, *shape), dtype=torch.float32, device="cpu")
            self.xi.normal_into(self._chunk, image, "forward", 0, draw=chunk)
            self._key = (image, chunk)
        return self._chunk


def sample_rows(
    xi: RandomnessConfig, rows: Tensor, phase: Phase, time: int, shape: Sequence[int]
) -> Tensor:
    """Return the noise of single samples, whatever images and chunks they come from.

    Args:
        xi: The stage's configuration.
        rows: Image and sample number of every row, int64 [B, 2].
        phase: ``forward`` or ``reverse``.
        time: The step's time.
        shape: Shape of one sample's noise.

    Returns:
        [B, *shape], float32, on the CPU.
    """
    noise = torch.empty((len(rows), *shape), dtype=torch.float32, device="cpu")
    chunks = torch.stack([rows[:, 0], rows[:, 1] // CHUNK], dim=1)
    for image, chunk in torch.unique(chunks, dim=0).tolist():
        own = (chunks[:, 0] == image) & (chunks[:, 1] == chunk)
        noise[own] = chunk_noise(xi, image, chunk, shape, phase, time)[rows[own, 1] % CHUNK]
    return noise
