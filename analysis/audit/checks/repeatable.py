"""Equal calls under equal randomness have equal answers.

Where they differ although the randomness is fixed, "fooled" is no fact: an attack may win on one
call and the decision fall on the next. AutoAttack flags such a model as random and then needs
draws.

What to do: draw from torch's global generator, or take `(images, ids, randomness)`; else evaluate
under fresh randomness.
"""

from advpure.analysis.audit.faults import UNKEYED, fault_check

CHECK = fault_check(
    name="repeatable",
    about="equal calls have equal answers where one function is claimed to decide",
    source="[Croce2020]",
    faults={UNKEYED: "run advpure attack without --fix-random"},
)
