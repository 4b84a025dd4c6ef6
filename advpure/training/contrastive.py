"""Instance discrimination: tell the other view of an image from the views of all other images.

With cosines c_ij between query i and key j, the loss of query i is

    -log(exp(c_ii / tau) / sum_j exp(c_ij / tau)),

the cross-entropy of the similarities against the diagonal.

Source: [Oord2018], equation 4, with the cosine of [Chen2020b].
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(queries: Tensor, keys: Tensor, temperature: float = 0.2) -> Tensor:
    """Return the loss of every query; the key of the same row is its positive.

    Args:
        queries: [B, D].
        keys: [B, D]; no gradient flows to them.
        temperature: tau, above 0.

    Returns:
        [B], float32 or better, from 0 to log B + 2 / tau.

    Example:
        >>> apart = torch.eye(2)
        >>> bool((info_nce(apart, apart, 0.01).abs() < 1e-6).all())
        True
    """
    exact = queries.dtype if queries.dtype == torch.float64 else torch.float32
    q = F.normalize(queries.to(exact), dim=1)
    k = F.normalize(keys.detach().to(exact), dim=1)
    cosines = q @ k.T
    own = torch.arange(len(q), device=q.device, dtype=torch.int64)
    return F.cross_entropy(cosines / temperature, own, reduction="none")
