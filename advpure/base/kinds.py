"""Annotations that several settings classes share; see `advpure.base.validation`."""

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Strength = int | float | str
"""A size in [0, 1] units as it is written; whole numbers stay whole, which `parse_eps` asks for."""
Natural = Annotated[int, Ge(1)]
"""A number of things of which there is at least one."""
Several = Annotated[int, Ge(2)]
"""A number of things that have a variance, or a start and an end."""
Whole = Annotated[int, Ge(0)]
"""A number of things that may be none."""
Seed = Annotated[int, Ge(0), Lt(2**64)]
"""A base seed; the scheme ``hash`` takes 32 bits of it only."""
Share = Annotated[float, Gt(0), Lt(1)]
"""A probability or another share that is neither nothing nor all."""
NotNegative = Annotated[float, Ge(0)]
"""A finite size."""
Positive = Annotated[float, Gt(0)]
"""A finite size that is not nothing."""
Limit = Annotated[float, Gt(0), Le(math.inf)]
"""A size that something ends at, infinity where it never does."""
StepsOfChain = Annotated[int, Ge(1), Le(100_000)]
"""Nodes, evaluations or noise levels of a chain; their tables are laid out before anything runs."""
