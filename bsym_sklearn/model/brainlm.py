"""BrainLM: a masked autoencoder whose tokens are regions by patches of time.

Shape letters: B scans, T time points, R regions, P patches, S time points of a
patch, N = R * P tokens, V visible tokens, D channels.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bsym_sklearn.model.brainlm_layers import Decoder, Encoder, Stack
from bsym_sklearn.model.layers import set_generator
from bsym_sklearn.model.patches import PatchBackbone, Patches, take


class BrainLMEmbeddings(NamedTuple):
    """What BrainLM says about a batch.

    Parameters
    ----------
    cls : Tensor of shape (B, D)
        The class token.
    regions : Tensor of shape (B, R, D)
        Mean token of each region.
    """

    cls: Tensor
    regions: Tensor


class PatchPrediction(NamedTuple):
    """Predicted patches, and where they are judged.

    Parameters
    ----------
    values, target : Tensor of shape (B, R, P, S)
        Predicted and true series.
    hidden : bool Tensor of shape (B, R, P, S)
        True where a value exists and was hidden.
    """

    values: Tensor
    target: Tensor
    hidden: Tensor

    def error(self) -> Tensor:
        """Return the mean squared error over the hidden values, 0 without any."""
        error = (self.values - self.target).masked_fill(~self.hidden, 0)
        return error.square().sum() / self.hidden.sum().clamp(min=1)


class BrainLM(PatchBackbone):
    """Masked autoencoder for parcellated fMRI.

    Without a mask, tokens are encoded in their own order, so that embeddings are
    deterministic; the released code shuffles them even then. Patches that are
    padding throughout take no part.

    Parameters
    ----------
    n_regions : int
        Regions R.
    window : int, default=200
        Time points T, at most. Those after the last whole patch are not used.
    patch_size : int, default=20
        Time points S of a patch, at most T.
    dim : int, default=512
        Channels D of every embedding.
    depth, decoder_depth : int, default=4, 2
        Blocks.
    n_heads, mlp_dim : int, default=4, 1024
        Attention heads and hidden channels of the blocks, in both.
    mask_ratio : float, default=0.75
        Share of the tokens to hide in pretraining, in (0, 1).
    convolution_kernel : int or None, default=65
        Taps of the convolution along tokens, odd. None for none.
    sort_visible : bool, default=False
        Encode the visible tokens in pretraining in their own order, so that the
        convolution sees neighbours, or in random order (published).
    coordinate_scale : float, default=1.0
        Factor of the coordinates. As published, millimetres enter as they are
        and dwarf the series; with 0.01, they do not.
    position_dropout : float, default=0.1
        Rate on the placed tokens, in [0, 1).
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Attributes
    ----------
    config : dict
        The constructor's arguments, as JSON can hold them:
        ``BrainLM(**config)`` builds the same model.
    coordinates : Tensor of shape (R, 3)
        Centres of the regions in mm (MNI), zero until ``set_coordinates``.

    References
    ----------
    .. [1] Ortega Caro et al. (2024). BrainLM: a foundation model for brain
       activity recordings. ICLR; released code, brainlm_mae/modeling_brainlm.py,
       at b591d88.

    Examples
    --------
    >>> import torch
    >>> model = BrainLM(5, 40, **BrainLM.preset("toy")).eval()
    >>> model.set_coordinates(torch.randn(5, 3))
    >>> fmri = torch.randn(2, 40, 5)
    >>> model(fmri).shape, model.embeddings(fmri).cls.shape
    (torch.Size([2, 5, 64]), torch.Size([2, 64]))
    >>> loss = model.self_supervised_loss(fmri, torch.Generator().manual_seed(0))
    """

    encoder: Encoder
    visible_counts: Tensor
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "toy": {
            "dim": 64,
            "depth": 2,
            "n_heads": 4,
            "mlp_dim": 128,
            "decoder_depth": 1,
            "convolution_kernel": None,
            "sort_visible": True,
            "coordinate_scale": 0.01,
        },
        "13m": {
            "dim": 512,
            "depth": 4,
            "n_heads": 4,
            "mlp_dim": 1024,
            "decoder_depth": 2,
        },
    }

    def __init__(
        self,
        n_regions: int,
        window: int = 200,
        *,
        patch_size: int = 20,
        dim: int = 512,
        depth: int = 4,
        n_heads: int = 4,
        mlp_dim: int = 1024,
        decoder_depth: int = 2,
        mask_ratio: float = 0.75,
        convolution_kernel: int | None = 65,
        sort_visible: bool = False,
        coordinate_scale: float = 1.0,
        position_dropout: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            n_regions, window, patch_size=patch_size, dim=dim, n_coordinates=3
        )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must be in (0, 1). Got {mask_ratio!r}.")
        if convolution_kernel is not None and convolution_kernel % 2 == 0:
            raise ValueError(
                f"`convolution_kernel` must be odd or None. Got {convolution_kernel}."
            )
        self.mask_ratio = mask_ratio
        self.sort_visible = sort_visible
        self.coordinate_scale = coordinate_scale
        self.config = {
            "n_regions": n_regions,
            "window": window,
            "patch_size": patch_size,
            "dim": dim,
            "depth": depth,
            "n_heads": n_heads,
            "mlp_dim": mlp_dim,
            "decoder_depth": decoder_depth,
            "mask_ratio": mask_ratio,
            "convolution_kernel": convolution_kernel,
            "sort_visible": sort_visible,
            "coordinate_scale": coordinate_scale,
            "position_dropout": position_dropout,
        }
        n_patches = window // patch_size
        stack = partial(
            Stack,
            n_patches,
            dim,
            n_heads=n_heads,
            mlp_dim=mlp_dim,
            kernel=convolution_kernel,
            position_dropout=position_dropout,
        )
        with torch.device("meta"):
            self.encoder = Encoder(patch_size, dim, stack(depth=depth))
            self.decoder = Decoder(patch_size, dim, stack(depth=decoder_depth))
        self._draw_weights(generator)
        # How many tokens stay visible of a scan of so many patches.
        counts = [self._n_visible(n_regions * n) for n in range(n_patches + 1)]
        self.register_buffer("visible_counts", torch.tensor(counts), persistent=False)

    def forward(self, fmri: Tensor, padding: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Parameters
        ----------
        fmri : Tensor of shape (B, T, R)
            Scaled series.
        padding : bool Tensor of shape (B, T) or None
            True where a time point does not exist.

        Returns
        -------
        Tensor of shape (B, R, D)
            Mean token of each region.
        """
        return self.embeddings(fmri, padding).regions

    def embeddings(
        self, fmri: Tensor, padding: Tensor | None = None
    ) -> BrainLMEmbeddings:
        """Return the class token and the regions, see :meth:`forward`."""
        patches = Patches(fmri, self.patch_size, padding)
        absent = patches.absent_tokens()
        order = None
        if absent is not None:
            # Present tokens first, so that the convolution meets no gaps.
            order = absent.byte().argsort(dim=1, stable=True)
            absent = absent.gather(1, order)
        x = self.encoder(patches.values, self._scaled_coordinates(), order, absent)
        cls, tokens = x[:, 0], x[:, 1:]
        if order is not None:
            tokens = take(tokens, order.argsort(dim=1))
        return BrainLMEmbeddings(cls, patches.region_means(tokens))

    def self_supervised_loss(
        self, fmri: Tensor, generator: torch.Generator, padding: Tensor | None = None
    ) -> Tensor:
        """Hide random tokens and return the squared error of their prediction.

        Parameters
        ----------
        fmri, padding
            See :meth:`forward`.
        generator : torch.Generator
            On the device of `fmri`. Draws the mask and, in training, the dropout.

        Returns
        -------
        Tensor of shape ()
            Mean over the hidden values.
        """
        set_generator(self, generator)
        n_tokens = self.n_regions * (fmri.shape[1] // self.patch_size)
        noise = torch.rand(
            len(fmri),
            n_tokens,
            dtype=torch.float32,
            generator=generator,
            device=generator.device,
        )
        return self.predict_hidden(fmri, noise, padding).error()

    def predict_hidden(
        self, fmri: Tensor, noise: Tensor, padding: Tensor | None = None
    ) -> PatchPrediction:
        """Predict the tokens with the highest `noise` (B, N) from the others.

        As published, ``int(N * (1 - mask_ratio))`` tokens stay visible, N being
        those of the scan that exist.
        """
        patches = Patches(fmri, self.patch_size, padding)
        absent = patches.absent_tokens()
        noise = noise if absent is None else noise.masked_fill(absent, torch.inf)
        order = noise.argsort(dim=1)  # (B, N)
        n_visible = self._n_visible(order.shape[1])
        keep = order[:, :n_visible]  # (B, V)
        unused = None
        if patches.absent is not None:  # fewer of a shorter scan
            used = self.visible_counts[(~patches.absent).sum(1)]
            unused = torch.arange(n_visible, device=used.device) >= used.unsqueeze(1)
        if self.sort_visible:
            first = keep if unused is None else keep.masked_fill(unused, order.shape[1])
            keep = keep.gather(1, first.argsort(dim=1))
            order = torch.cat([keep, order[:, n_visible:]], dim=1)
        shown = torch.ones_like(keep, dtype=torch.bool) if unused is None else ~unused
        visible = torch.zeros_like(order, dtype=torch.bool).scatter(1, keep, shown)
        coordinates = self._scaled_coordinates()
        encoded = self.encoder(patches.values, coordinates, keep, unused)
        values = self.decoder(encoded, coordinates, order, visible, absent)
        target = patches.values
        hidden = (~visible).view(target.shape[:3]).unsqueeze(-1).expand_as(target)
        if patches.padding is not None:
            hidden = hidden & ~patches.padding.unsqueeze(1)
        return PatchPrediction(values.view(target.shape), target, hidden)

    def _scaled_coordinates(self) -> Tensor:
        """Return the coordinates as the model reads them."""
        return self.coordinates * self.coordinate_scale

    def _n_visible(self, n_tokens: int) -> int:
        """Return how many of `n_tokens` stay visible in pretraining."""
        return int(n_tokens * (1 - self.mask_ratio))

    @property
    def blocks(self) -> nn.ModuleList:
        """Blocks of the encoder."""
        return self.encoder.stack.blocks
