"""Which devices can be asked for, checked before anything is loaded."""

import torch

from advpure.errors import BadInput

_KINDS = ("cpu", "cuda", "mps")


def check_device(name: str) -> str:
    """Refuse a device that does not exist here.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Returns:
        The same name.

    Raises:
        BadInput: for an unknown name, or a device that this machine or this torch lacks.

    Example:
        >>> check_device("cpu")
        'cpu'
    """
    subject = f"device {name!r}"
    try:
        kind, index = (device := torch.device(name)).type, device.index or 0
    except RuntimeError:
        kind, index = "", 0
    if kind not in _KINDS:
        raise BadInput(subject, "is not known", "use cpu, cuda, cuda:1 or mps")
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[kind]
    if not found:
        raise BadInput(subject, "is not available here", "use --device cpu")
    if index >= found:
        raise BadInput(
            subject, f"is beyond the {found} available here", f"count from 0 to {found - 1}"
        )
    return name
