"""What a connectome says before anything is learned: hops and positions.

Shape letters: B scans, K hops, R regions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bsym_sklearn.model.layers import check_choice

N_SPECTRAL = 30  # eigenvectors used as positions
DIFFUSION_TERMS = 9
EDGE_WEIGHTS = ("first_hop", "multi_hop", "diffusion")


def hop_weights(
    sc: Tensor, kind: str = "first_hop", max_hops: int = 2, theta: float = 0.1
) -> Tensor:
    r"""Return the matrices along which the graph attention mixes regions.

    Parameters
    ----------
    sc : Tensor of shape (B, R, R)
        Structural connectome.
    kind : {"first_hop", "multi_hop", "diffusion"}, default="first_hop"
        The connectome itself; its powers up to `max_hops`, each from the second
        on divided by its Frobenius norm; or the truncated heat-like series
        :math:`\sum_{k=0}^{9} (\theta D^{-1/2} A D^{-1/2})^k` with D the absolute
        degrees.
    max_hops : int, default=2
        Powers K, used with ``"multi_hop"``.
    theta : float, default=0.1
        Diffusion rate, in (0, 1).

    Returns
    -------
    Tensor of shape (B, K, R, R)

    References
    ----------
    .. [1] Released code of arXiv:2506.18314, models/layers/signed_graph.py.

    Examples
    --------
    >>> import torch
    >>> hop_weights(torch.eye(2)[None], "multi_hop", max_hops=3).shape
    torch.Size([1, 3, 2, 2])
    """
    check_choice(kind, EDGE_WEIGHTS, "edge_weights")
    if kind == "first_hop":
        return sc.unsqueeze(1)
    if kind == "multi_hop":
        hops = [sc]
        for _ in range(1, max_hops):
            power = hops[-1] @ sc
            norm = power.flatten(1).norm(dim=1)[:, None, None]
            hops.append(power / (norm + 1e-8))
        return torch.stack(hops, dim=1)
    degree = sc.abs().sum(-1)
    scale = (degree + 1e-10).rsqrt()
    step = theta * scale.unsqueeze(2) * sc * scale.unsqueeze(1)
    power = torch.eye(sc.shape[-1], dtype=sc.dtype, device=sc.device)
    # The released code sums in single precision whatever the input is.
    total = power.float()
    for _ in range(DIFFUSION_TERMS):
        power = power @ step
        total = (total + power).float()
    return total.to(sc).unsqueeze(1)


def spectral_coordinates(sc: Tensor, order: str = "spectral") -> Tensor:
    r"""Return eigenvectors of the Laplacian of the connectome's row similarity.

    With :math:`A_{ij} = 1 - \arccos(\cos(w_i, w_j)) / \pi` for rows :math:`w` and
    its symmetric normalised Laplacian. Each vector's largest entry is positive.

    Parameters
    ----------
    sc : Tensor of shape (B, R, R)
        Structural connectome.
    order : {"spectral", "reference"}, default="spectral"
        Smallest eigenvalues but the trivial one (smooth), or the largest as
        released (rough).

    Returns
    -------
    Tensor of shape (B, R, 30)
        Zero padded for small R.

    Examples
    --------
    >>> import torch
    >>> spectral_coordinates(torch.eye(4)[None]).shape
    torch.Size([1, 4, 30])
    """
    rows = sc / (sc.norm(dim=-1, keepdim=True) + 1e-8)
    cosine = (rows @ rows.transpose(1, 2)).clamp(-1, 1)
    affinity = 1 - cosine.arccos() / torch.pi
    scale = (affinity.sum(-1) + 1e-10).rsqrt()
    normalized = scale.unsqueeze(2) * affinity * scale.unsqueeze(1)
    identity = torch.eye(sc.shape[-1], dtype=sc.dtype, device=sc.device)
    _, vectors = torch.linalg.eigh(identity - normalized)  # ascending
    if order == "reference":
        vectors = vectors.flip(-1)[..., :N_SPECTRAL]
    else:
        vectors = vectors[..., 1 : 1 + N_SPECTRAL]
    peak = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * torch.where(peak < 0, -1.0, 1.0).to(vectors)
    return nn.functional.pad(vectors, (0, N_SPECTRAL - vectors.shape[-1]))


def prepare_connectome(
    sc: np.ndarray | Tensor, *, edge_weights: str, max_hops: int, positions: str
) -> dict[str, np.ndarray]:
    """Compute what depends on one connectome only, once for all its uses.

    Parameters
    ----------
    sc : array of shape (R, R)
        Scaled connectome, on the CPU.
    edge_weights, max_hops
        See :func:`hop_weights`.
    positions : {"learned", "spectral", "reference"}
        See :func:`spectral_coordinates`, which ``"learned"`` does not need.

    Returns
    -------
    dict of str to ndarray
        ``"sc_hops"`` (K, R, R) and ``"sc_positions"`` (R, 30), of the type of `sc`,
        each only if the options need it. Stacked over scans, they are arguments of
        :meth:`BrainSymphony.forward
        <bsym_sklearn.model.brainsymphony.BrainSymphony.forward>`.

    Examples
    --------
    >>> import numpy as np
    >>> options = {"edge_weights": "diffusion", "max_hops": 2, "positions": "spectral"}
    >>> ready = prepare_connectome(np.eye(4), **options)
    >>> ready["sc_hops"].shape, ready["sc_positions"].shape
    ((1, 4, 4), (4, 30))
    """
    batch = torch.as_tensor(sc).detach().unsqueeze(0)
    ready = {}
    if edge_weights != "first_hop":
        ready["sc_hops"] = hop_weights(batch, edge_weights, max_hops)[0].numpy()
    if positions != "learned":
        ready["sc_positions"] = spectral_coordinates(batch, positions)[0].numpy()
    return ready
