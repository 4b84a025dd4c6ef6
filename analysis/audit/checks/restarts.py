"""Another start leads nowhere else.

One start can be a trap: a point from which the gradient leads back. The attack is run again from
another random start on what it left.

What to do: `--attack-option restarts=10`, or `--attack standard`.
"""

from advpure.analysis.audit.attempts import attempt

CHECK = attempt(
    name="restarts",
    about="four other starts of 12 steps fool nothing more",
    source="[Carlini2019]",
    words="PGD from four other starts",
    attack="pgd",
    options=lambda e: {"steps": 12, "step_size": e.eps / 5, "loss": "margin", "restarts": 4},
    applies_fixed=True,
    cost=lambda settings: 64,
    settle="run again with --attack-option restarts=10",
)
