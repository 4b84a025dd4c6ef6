"""An attack without gradients does not beat the attack.

Whoever knows the model cannot do worse than whoever asks for its scores. Square search fooling
what a gradient attack leaves is the classic sign of masked gradients; AutoAttack warns from 0.2 %
on.

What to do: find what hides the gradient (`finite-differences`); `--attack standard`.
"""

from advpure.analysis.audit.attempts import attempt

CHECK = attempt(
    name="black-box",
    about="80 queries of Square fool nothing more",
    source="[Carlini2019], [Croce2020]",
    words="Square with 80 queries",
    attack="square",
    options=lambda e: {"queries": 80},
    cost=lambda settings: 82,
    settle="run --attack square on the same images",
)
