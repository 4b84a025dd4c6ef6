"""The Inception network of the FID, from pytorch-fid, with weights from a local file.

Of images enlarged to 299 pixels (bilinear): `inception-2048`, the last pooled features (the FID as
it is usually meant); `inception-768`, the features in front of the auxiliary classifier, mean over
positions (the FID of [Wei2025]); `inception-classes`, the class probabilities of the
inception score, without the bias of the last layer, as in the evaluators of [Dhariwal2021] and of
torch-fidelity.

pytorch-fid downloads its weights when the network is made. Nothing is downloaded here: the file has
to be there, with the sha256 that its name begins with.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advpure.analysis.metrics.networks import FeatureNetwork, MetricContext, Vectors, three_channels
from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.place import data_root
from advpure.networks.weights import load_state, sha256

FILE = "pt_inception-2015-12-05-6726825d.pth"
_BLOCKS = {"inception-768": 2, "inception-2048": 3}
OUTPUTS = (*_BLOCKS, "inception-classes")
_TILE = 16


def load(context: MetricContext) -> FeatureNetwork:
    """Load the network.

    Raises:
        MissingExtra: when pytorch-fid is not installed.
        BadInput: when the weights are missing or are others.
    """
    path = find_weights()
    state = load_state(path)
    network = make_network(state).to(context.device)
    return features_of(network, state["fc.weight"].to(context.device), {"sha256": sha256(path)})


def features_of(network: nn.Module, last: Tensor, identity: Mapping[str, Any]) -> FeatureNetwork:
    """Wrap a network with the interface of pytorch-fid's `InceptionV3([2, 3])`.

    Args:
        network: Images [B, 3, H, W] in [0, 1] to the list of its blocks 2 and 3.
        last: Weight of the last linear layer, [classes, 2048].
        identity: What identifies the weights.
    """

    def run(images: Tensor) -> Vectors:
        blocks = network(three_channels(images))
        vectors = {
            name: block.mean(dim=(2, 3)) for name, block in zip(_BLOCKS, blocks, strict=True)
        }
        vectors["inception-classes"] = (vectors["inception-2048"] @ last.T).softmax(1)
        return vectors

    return FeatureNetwork(run=run, outputs=OUTPUTS, tile=_TILE, identity=identity)


def make_network(state: Mapping[str, Tensor]) -> nn.Module:
    """Build pytorch-fid's network around tensors instead of a download.

    Raises:
        MissingExtra: when pytorch-fid is not installed.
        BadInput: when the tensors do not fit.
    """
    with optional("pytorch_fid", "metrics", distribution="pytorch-fid"):
        from pytorch_fid import inception
    download = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *args, **options: dict(state)
    try:
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = inception.InceptionV3(sorted(_BLOCKS.values()))
    except RuntimeError:
        raise BadInput(FILE, "does not fit pytorch-fid's network", "obtain it again") from None
    finally:
        inception.load_state_dict_from_url = download
    return network.eval()


def find_weights() -> Path:
    """Return the file of weights: ours, or the one that pytorch-fid left in torch's cache.

    Raises:
        BadInput: when there is none, or its sha256 does not begin as its name says.
    """
    files = (data_root() / "fid" / FILE, Path(torch.hub.get_dir()) / "checkpoints" / FILE)
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise BadInput(
            f"FID weights {files[0]}",
            "are missing",
            "put the file of that name of pytorch-fid's release there",
        )
    if not sha256(path).startswith(Path(FILE).stem.rpartition("-")[2]):
        raise BadInput(f"FID weights {path}", "have a wrong sha256", "obtain them again")
    return path
