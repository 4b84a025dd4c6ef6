"""Answering changes nothing in the model.

Running statistics that move while images are classified make the answer to one image depend on
those before it, and the attack's own queries train the defense.

What to do: call `.eval()`, or keep what moves out of `forward`.
"""

from advpure.analysis.audit.faults import fault_check

CHECK = fault_check(
    name="moving-statistics",
    about="no buffer of the model, and no image, changes while it answers",
    source="[Croce2021]",
    faults={
        "buffers": "call .eval() where the model is made",
        "in-place": "let it work on a copy of the images",
    },
)
