"""The classifier is better than chance on the images as they are.

One that is not was given images in another range, or another normalisation, than it was trained
on.

What to do: `--normalize MEAN/STD`.
"""

from advpure.analysis.audit.faults import fault_check

CHECK = fault_check(
    name="better-than-chance",
    about="the classifier is better than chance on images in [0, 1]",
    source="[Carlini2019]",
    faults={"chance": "give --normalize MEAN/STD"},
)
