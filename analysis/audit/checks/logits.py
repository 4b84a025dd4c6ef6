"""The model answers with logits, finite ones.

The cross-entropy of probabilities takes a second softmax of them: gradients vanish where the
model is sure, and an attack that would succeed on the logits stops.

What to do: return what comes before the softmax, or say `--outputs probabilities`.
"""

from advpure.analysis.audit.faults import fault_check

CHECK = fault_check(
    name="logits",
    about="answers are finite logits, no probabilities",
    source="[Croce2020]",
    faults={
        "probabilities": "return what comes before the softmax, or say --outputs probabilities",
        "not-finite": "find the first operation that is not finite: advpure check-grad; "
        "torch.autograd.set_detect_anomaly",
    },
)
