"""What the rivals share: tokens that are one region in one patch of time.

Shape letters: B scans, T time points, R regions, P patches, S time points of a
patch, N = R * P tokens (all patches of a region, then those of the next), D
channels. Padding and absence are True where something does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bsym_sklearn.model.layers import Attention, check_choice, initialize_weights

WEIGHT_SCALE = 0.02  # standard deviation of weights at the start, as published


class Patches:
    """Scans cut along time.

    Time points after the last whole patch are not used. Values at padding are
    zero, the mean of a scaled series.

    Parameters
    ----------
    fmri : Tensor of shape (B, T, R)
        Scaled series.
    size : int
        Time points S of a patch.
    padding : bool Tensor of shape (B, T) or None
        True where a time point does not exist.

    Attributes
    ----------
    values : Tensor of shape (B, R, P, S)
        The patches.
    padding : bool Tensor of shape (B, P, S) or None
        True where a time point does not exist.
    absent : bool Tensor of shape (B, P) or None
        True where no time point of a patch exists.

    Examples
    --------
    >>> import torch
    >>> padding = torch.tensor([[False, False, False, True, True, True, True]])
    >>> patches = Patches(torch.zeros(1, 7, 3), 2, padding)
    >>> patches.values.shape, patches.absent
    (torch.Size([1, 3, 3, 2]), tensor([[False, False,  True]]))
    """

    def __init__(self, fmri: Tensor, size: int, padding: Tensor | None = None) -> None:
        used = fmri.shape[1] // size * size
        fmri = fmri[:, :used]
        self.padding = self.absent = None
        if padding is not None:
            padding = padding[:, :used]
            fmri = fmri.masked_fill(padding.unsqueeze(-1), 0)
            self.padding = padding.unflatten(1, (-1, size))
            self.absent = self.padding.all(-1)
        self.values = fmri.transpose(1, 2).unflatten(2, (-1, size))

    def absent_tokens(self) -> Tensor | None:
        """Return which tokens do not exist, (B, N), or None if all do."""
        if self.absent is None:
            return None
        return self.absent.repeat(1, self.values.shape[1])

    def region_means(self, tokens: Tensor) -> Tensor:
        """Average `tokens` (B, N, D) over the patches of each region: (B, R, D)."""
        tokens = tokens.unflatten(1, self.values.shape[1:3])  # (B, R, P, D)
        if self.absent is None:
            return tokens.mean(2)
        present = (~self.absent)[:, None, :, None].to(tokens)
        return (tokens * present).sum(2) / present.sum(2).clamp(min=1)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Return the tokens (B, K, D) of `tokens` (B, N, D) at `index` (B, K).

    Examples
    --------
    >>> import torch
    >>> take(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[1, 0, 1]])).flatten()
    tensor([2., 1., 2.])
    """
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class BiasedAttention(Attention):
    """Self-attention whose queries, keys and values have a bias, as in ViT.

    Parameters
    ----------
    dim, n_heads : int
        See :class:`~bsym_sklearn.model.layers.Attention`.

    Examples
    --------
    >>> BiasedAttention(8, 2).query_key_value.bias.shape
    torch.Size([24])
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__(dim, n_heads)
        self.query_key_value = nn.Linear(dim, 3 * dim)


def draw_normal(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights inside `module` from N(0, 0.02^2), in place; zero biases.

    Linear layers and two-dimensional convolutions only.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(100, 100)
    >>> draw_normal(layer, torch.Generator().manual_seed(0))
    >>> round(layer.weight.std().item(), 3), layer.bias.abs().max().item()
    (0.02, 0.0)
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                part.weight.normal_(0, WEIGHT_SCALE, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()


class PatchBackbone(nn.Module):
    """A self-supervised model of region-by-patch tokens: what a trainer needs.

    Parameters
    ----------
    n_regions, window, patch_size : int
        Regions R, time points T of a window, at most, and S of a patch.
    dim : int
        Channels D.
    n_coordinates : int
        Numbers that place a region.

    Attributes
    ----------
    config : dict
        The constructor's arguments, as JSON can hold them.
    coordinates : Tensor of shape (R, n_coordinates)
        Places of the regions: stored with the weights, zero until
        :meth:`set_coordinates`.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    config: dict[str, Any]
    coordinates: Tensor
    encoder: nn.Module

    def __init__(
        self,
        n_regions: int,
        window: int,
        *,
        patch_size: int,
        dim: int,
        n_coordinates: int,
    ) -> None:
        super().__init__()
        if not 1 <= patch_size <= window:
            raise ValueError(
                "`patch_size` must be at least 1 and at most `window`. "
                f"Got {patch_size=}, {window=}."
            )
        self.n_regions = n_regions
        self.window = window
        self.patch_size = patch_size
        self.dim = dim
        self.register_buffer("coordinates", torch.zeros(n_regions, n_coordinates))

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """Return the sizes called `name`, as arguments of the constructor."""
        check_choice(name, tuple(cls.PRESETS), "preset")
        return dict(cls.PRESETS[name])

    def forward(self, fmri: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return region embeddings (B, R, D) of `fmri` (B, T, R)."""
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def self_supervised_loss(
        self, fmri: Tensor, generator: torch.Generator, padding: Tensor | None = None
    ) -> Tensor:
        """Return the loss of pretraining; all randomness is from `generator`."""
        raise NotImplementedError(f"{type(self).__name__}.self_supervised_loss")

    def set_coordinates(self, coordinates: Tensor) -> None:
        """Store the places of the regions, (R, n_coordinates)."""
        if coordinates.shape != self.coordinates.shape:
            raise ValueError(
                "set_coordinates needs a tensor of shape "
                f"{tuple(self.coordinates.shape)}. Got {tuple(coordinates.shape)}. "
                "Use the same regions and number of coordinates."
            )
        self.coordinates.copy_(coordinates)

    @property
    def blocks(self) -> nn.ModuleList:
        """Blocks of the encoder, from input to output."""
        raise NotImplementedError(f"{type(self).__name__}.blocks")

    def blocks_by_depth(self) -> Iterator[tuple[float, nn.Module]]:
        """Yield every part with its depth from 0 (input) to 1 (output).

        Used by layer-wise learning rates. What only pretraining uses has depth 1.
        """
        for part in self.children():
            yield (0.0 if part is self.encoder else 1.0), part
        for i, block in enumerate(self.blocks):
            yield (i + 1) / (len(self.blocks) + 1), block

    def _draw_weights(self, generator: torch.Generator | None) -> None:
        """Give the weights, made on the meta device, memory and values."""
        coordinates = torch.zeros(self.coordinates.shape, dtype=torch.float32)
        self.float()  # a float64 default of torch would draw other weights
        self.to_empty(device="cpu")
        self.coordinates = coordinates
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        initialize_weights(self, generator)
