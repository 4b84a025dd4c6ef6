"""Ten thousand points of noise do not beat the attack.

The guideline's own number: random search with 10,000 points an image must not fool what a
gradient attack leaves.

What to do: `--attack standard`, whose last part needs no gradient.
"""

from advpure.analysis.audit.attempts import attempt

CHECK = attempt(
    name="noise-search-long",
    about="10,000 points of noise in the ball fool nothing more",
    source="[Carlini2019]",
    words="the best of 10,000 points of noise",
    attack="uniform-noise",
    options=lambda e: {"draws": 10_000, "loss": "margin"},
    cost=lambda settings: 10_001,
    thorough=True,
    settle="run --attack standard on the same images",
)
