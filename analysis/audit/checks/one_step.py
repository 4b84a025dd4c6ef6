"""Many steps fool what one step fools.

A single step along the sign of the gradient is the weakest of gradient attacks. Where it fools an
image that an iterative attack leaves, the iterations went astray: a sign of obfuscated gradients.

What to do: check step size and gradient; `--attack standard`.
"""

from advpure.analysis.audit.attempts import attempt

CHECK = attempt(
    name="one-step",
    about="no image is fooled by one step of epsilon alone",
    source="[Carlini2019], [Athalye2018]",
    words="one step of epsilon",
    attack="pgd",
    options=lambda e: {"steps": 1, "step_size": e.eps, "random_start": False, "loss": "margin"},
    cost=lambda settings: 3,
    settle="run --attack standard on the same images",
)
