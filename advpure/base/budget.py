"""How much a file may ask for before anything is built or walked.

Every reader of foreign files compares what a file states with these numbers first. They lie far
above what any published network or recipe needs.
"""

MAX_TEXT = 2**20
"""Bytes of a text that is parsed: a recipe, an index, a header."""

MAX_NESTING = 64
"""Tables or lists inside one another."""

MAX_BATCH = 2**20
"""Images of one step of a training."""

MAX_SIDE = 2**12
"""Pixels that an image may be shifted by, or resized to."""

MAX_DRAWS = 2**12
"""Noises of one image in one step of a training."""

MAX_NODES = 2**16
"""Levels of a grid of noise levels."""

MAX_NAMES = 100_000
"""Modules and tensors in a pickle: each name counts, also for one that has several."""

MAX_PARAMETERS = 2**31
"""Parameters of a network that is built here."""

MAX_BLOCKS = 64
"""Blocks a level of a network."""

MAX_LEVELS = 8
"""Levels of a network."""

MAX_WIDTH = 2**16
"""Channels, classes and features of one layer."""
