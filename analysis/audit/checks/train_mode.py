"""The model is in evaluation mode.

In training mode dropout draws masks and batch normalisation looks at the other images: what is
measured is another model than the one that is used, and one that an attack cannot follow.

What to do: call `.eval()` where the model is made.
"""

from advpure.analysis.audit.faults import fault_check

CHECK = fault_check(
    name="train-mode",
    about="no layer answers otherwise than in evaluation mode",
    source="[Croce2021]",
    faults={
        "training": "call .eval() where the model is made",
        "batch-statistics": "call .eval(), or keep running statistics",
    },
)
