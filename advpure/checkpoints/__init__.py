"""The official checkpoints of the papers: a registry, safe reading, and proof of wiring."""

from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.loader import load_checkpoint, split_reference

__all__ = ["Checkpoint", "load_checkpoint", "split_reference"]
