"""An attack that sees decisions alone does not beat the attack.

The guideline asks for an attack without gradients and for one without scores: logits can be
flattened, or saturated, and then a search on scores is as blind as one on gradients. RayS asks
for classes only, here 400 times.

What to do: find what hides gradients and scores (`saturated-loss`, `tiny-changes`).
"""

from advpure.analysis.audit.attempts import attempt

CHECK = attempt(
    name="decisions-alone",
    about="400 queries of RayS, which sees classes only, fool nothing more",
    source="[Carlini2019], [Chen2020]",
    words="RayS with 400 queries",
    attack="rays",
    options=lambda e: {"queries": 400},
    cost=lambda settings: 402,
    thorough=True,
    settle="run --attack rays on the same images",
)
