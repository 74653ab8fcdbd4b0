"""Do embeddings tell scans apart? Two alarms for self-supervised training.

Shape letters: N scans, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def effective_rank(embeddings: Tensor) -> float:
    r"""Return how many directions the embeddings of different scans spread over.

    With the singular values :math:`s_k` of the embeddings, centred over scans,

    .. math::
        \mathrm{erank} = \exp\Big(-\sum_k p_k \log p_k\Big), \qquad
        p_k = s_k / \sum_j s_j .

    Singular values that rounding explains count as zero.

    Parameters
    ----------
    embeddings : Tensor of shape (N, ...)
        One row per scan; the other axes are joined.

    Returns
    -------
    float
        In [1, min(N - 1, D)]; 0 if all scans have the same embedding.

    References
    ----------
    .. [1] Roy & Vetterli (2007). The effective rank: a measure of effective
       dimensionality. EUSIPCO. There without centring, as in [2]_, which uses it
       to find collapse; a constant added to all embeddings tells no scans apart.
    .. [2] Garrido et al. (2023). RankMe: assessing the downstream performance of
       pretrained self-supervised representations by their rank. ICML.

    Examples
    --------
    >>> import torch
    >>> round(effective_rank(torch.eye(4)), 3), effective_rank(torch.ones(4, 2))
    (3.0, 0.0)
    """
    x = embeddings.detach().flatten(1)
    rounding = torch.finfo(x.dtype).eps * max(x.shape)
    x = x.double()
    values = torch.linalg.svdvals(x - x.mean(0))
    values = values[values > rounding * torch.linalg.matrix_norm(x)]
    if len(values) == 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def between_scan_spread(embeddings: Tensor) -> float:
    r"""Return how far the directions of the embeddings differ between scans.

    The embeddings are scaled to length one; their standard deviation over scans is
    compared with that of directions drawn at random,

    .. math::
        \mathrm{spread}^2 = \frac{1}{N} \sum_i \| u_i - \bar u \|^2
        = 1 - \| \bar u \|^2, \qquad u_i = z_i / \|z_i\| ,

    which in every channel would be :math:`1/D`.

    Parameters
    ----------
    embeddings : Tensor of shape (N, ...)
        One row per scan; the other axes are joined.

    Returns
    -------
    float
        In [0, 1]: 0 if all scans point the same way, 1 if they cancel out.

    References
    ----------
    .. [1] Chen & He (2021). Exploring simple siamese representation learning.
       CVPR. Section 4.1, the standard deviation of the normalised output.

    Examples
    --------
    >>> import torch
    >>> between_scan_spread(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    1.0
    >>> between_scan_spread(torch.ones(4, 2))
    0.0
    """
    unit = F.normalize(embeddings.detach().flatten(1).double(), dim=1)
    return float((unit - unit.mean(0)).square().sum(1).mean().sqrt())
