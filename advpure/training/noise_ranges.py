"""The range of noise that a network was made for: what starts as another network keeps it."""

from collections.abc import Mapping

from advpure.base.errors import BadInput
from advpure.core.denoisers import checked_range
from advpure.networks.weights import LoadedNetwork

RANGE = ("sigma_data", "sigma_min", "sigma_max")


def noise_range(teacher: LoadedNetwork, *tasks: str) -> dict[str, float]:
    """Return sigma_data, sigma_min and sigma_max of a network, model units.

    Args:
        teacher: The network.
        tasks: Those that it may have been trained for.

    Raises:
        BadInput: when it was trained for another task, or its file does not say its noise range.
    """
    if teacher.metadata.get("task") not in tasks:
        name = " or ".join(tasks)
        raise BadInput("teacher", f"is not a denoiser of the {name} task", f"give an {name} one")
    return checked_range({name: teacher.metadata.get(name) for name in RANGE})


def check_start(teacher: LoadedNetwork | None, wanted: Mapping[str, float], *tasks: str) -> None:
    """Refuse a network to start as whose noise range is another than the recipe's.

    Args:
        teacher: The network, None for none.
        wanted: The noise range, model units.
        tasks: Those that it may have been trained for.

    Raises:
        BadInput: as `noise_range`, or with both ranges.
    """
    if teacher is None:
        return
    own = noise_range(teacher, *tasks)
    if own != wanted:
        rule = f"has another noise range, {own}, than {dict(wanted)}"
        raise BadInput("teacher", rule, "use one of the same")
