"""Noise, tried often, does not beat the attack.

Thirty points drawn uniformly in the ball are a random search that asks for no gradient. An image
that it fools and the attack leaves shows an attack that cannot see. The guideline tries 10,000
points (`noise-search-long`).

What to do: `--attack standard`, whose last part needs no gradient.
"""

from advpure.analysis.audit.attempts import attempt

CHECK = attempt(
    name="noise-search",
    about="30 points of noise in the ball fool nothing more",
    source="[Carlini2019], [Athalye2018]",
    words="the best of 30 points of noise",
    attack="uniform-noise",
    options=lambda e: {"draws": 30, "loss": "margin"},
    cost=lambda settings: 31,
    settle="advpure audit with --thorough tries 10,000",
)
