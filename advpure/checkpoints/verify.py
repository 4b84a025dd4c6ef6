"""Check a checkpoint: is the file the official one, do its tensors fit, is our network right?"""

from dataclasses import dataclass
from pathlib import Path

from advpure.base.devices import plain_defaults
from advpure.base.errors import BadInput
from advpure.checkpoints.choices import split_choices
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.files import check_sum, choose_resample, read_weights
from advpure.checkpoints.layout import KeyReport, compare
from advpure.checkpoints.proof import deviation, load_proofs
from advpure.networks.weight_files import locate

TOLERANCE = 1e-5
"""Largest accepted deviation from the official code in float32, relative to the largest output.

Sums over up to 10^4 terms in another order differ by about 10^4 * 6e-8 / sqrt(10^4) per layer;
measured deviations are below 2e-6, a wrong order or embedding gives more than 1e-2.
"""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found.

    Attributes:
        entry: The checkpoint's name.
        parameters: Parameters of our network under the official names.
        expected_parameters: The official number.
        deviation: Largest relative difference from the stored outputs of the official code; None
            when they were not compared.
        file: The file; None when none was given.
        checksum: Whether it is the published one; None when no checksum is published.
        tensors: Number of tensors in the file.
        file_parameters: Parameters in the file.
        keys: What is missing, unexpected or of another shape.
    """

    entry: str
    parameters: int
    expected_parameters: int
    deviation: float | None = None
    file: str | None = None
    checksum: bool | None = None
    tensors: int | None = None
    file_parameters: int | None = None
    keys: KeyReport | None = None

    @property
    def passed(self) -> bool:
        """Whether everything that was checked is right."""
        return (
            self.parameters == self.expected_parameters
            and (self.deviation is None or self.deviation <= TOLERANCE)
            and self.checksum is not False
            and not self.keys
        )


@plain_defaults()
def verify(
    entry: Checkpoint, path: str | Path | None = None, case: str | None = "small"
) -> Verification:
    """Verify a checkpoint's wiring and, if given, its file.

    Args:
        entry: The checkpoint.
        path: A file that is meant to be it, with choices behind it, see
            `advpure.checkpoints.choices`.
        case: ``small`` or ``full``: which stored output of the official code to reproduce; None
            for neither. Full networks take up to 10 GB of memory and minutes.

    Returns:
        The findings; `passed` sums them up.

    Raises:
        BadInput: when the file cannot be read at all.
        MissingExtra: when the network's library is not installed.
    """
    _, layout = entry.skeleton()
    facts = {
        "entry": entry.name,
        "parameters": layout.parameters(),
        "expected_parameters": entry.parameters,
    }
    if case is not None:
        proofs = load_proofs(entry.proof)
        if case not in ("small", "full"):
            raise BadInput(f"case {case!r}", "is not known", "use small or full")
        facts["deviation"] = deviation(entry, proofs.get(case) or next(iter(proofs.values())))
    if path is not None:
        choices = split_choices(path)
        choose_resample(entry, choices, locate(choices.path))
        checksum = check_sum(entry, choices.path)
        state, _ = read_weights(entry, choices.path, layout, weights=choices.weights)
        facts |= {
            "file": str(path),
            "checksum": checksum,
            "tensors": len(state),
            "file_parameters": layout.parameters(state),
            "keys": compare(layout, state),
        }
    return Verification(**facts)  # type: ignore[arg-type]
