"""Which devices can be asked for, and where and in which precision networks are built."""

import contextlib
from collections.abc import Iterator

import torch

from advpure.base.errors import BadInput

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
    available = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[kind]
    if not available:
        raise BadInput(subject, "is not available here", "use --device cpu")
    if index >= available:
        raise BadInput(
            subject, f"is beyond the {available} available here", f"count from 0 to {available - 1}"
        )
    return name


@contextlib.contextmanager
def plain_defaults() -> Iterator[None]:
    """Build networks on the CPU in float32, whatever `torch.set_default_dtype` and the like say.

    Layers of torch and of other libraries take both from the defaults of the process; a network
    that is loaded, or trained, may not depend on them. Also a decorator: ``@plain_defaults()``.

    Example:
        >>> with torch.device("meta"), plain_defaults():
        ...     torch.nn.Linear(1, 1).weight.device.type
        'cpu'
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(before)
