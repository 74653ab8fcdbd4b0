"""Brain-JEPA: predict the embeddings of hidden regions and times, not their series.

Shape letters: B scans, T time points, R regions, P patches, S time points of a
patch, K tokens of a list, D channels, G gradients.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsym_sklearn.model.block_masking import (
    MASKINGS,
    TokenList,
    list_tokens,
    longest_lists,
    sample_blocks,
)
from bsym_sklearn.model.brain_jepa_layers import Encoder, Predictor
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.model.patches import PatchBackbone, Patches, take

FIRST_MOMENTUM, LAST_MOMENTUM = 0.996, 1.0  # of the target encoder
FEWEST_REGIONS = 3  # with fewer, a mask could leave nothing to see


class BrainJEPA(PatchBackbone):
    """Joint-embedding predictive model for parcellated fMRI.

    The encoder sees part of a scan, from which the predictor tells what the target
    encoder, a slow average of the encoder, makes of the other parts. Patches that
    are padding throughout take no part.

    Nothing in this objective forbids that all scans get the same embedding: look at
    :mod:`bsym_sklearn.model.collapse`.

    Parameters
    ----------
    n_regions : int
        Regions R, at least 3.
    window : int, default=160
        Time points T, at most. Those after the last whole patch are not used.
    patch_size : int, default=16
        Time points S of a patch, at most T.
    dim : int, default=768
        Channels D of every embedding, a multiple of 4.
    depth, n_heads : int, default=12, 12
        Blocks and attention heads of the encoder.
    predictor_dim, predictor_depth : int, default=384, 6
        Channels, a multiple of 4, and blocks of the predictor. It has as many
        heads as the encoder.
    n_gradients : int, default=30
        Gradients G that place a region.
    masking : {"published", "repaired"}, default="repaired"
        See :func:`~bsym_sklearn.model.block_masking.sample_blocks`.
    generator : torch.Generator or None, default=None
        Draws the weights. None takes a generator seeded with 0.

    Attributes
    ----------
    config : dict
        The constructor's arguments, as JSON can hold them:
        ``BrainJEPA(**config)`` builds the same model.
    coordinates : Tensor of shape (R, G)
        Gradients of functional connectivity, zero until ``set_coordinates``.

    References
    ----------
    .. [1] Dong et al. (2024). Brain-JEPA: brain dynamics foundation model with
       gradient positioning and spatiotemporal masking. NeurIPS; released code,
       src/, at b1dfa93.

    Examples
    --------
    >>> import torch
    >>> model = BrainJEPA(5, 64, n_gradients=2, **BrainJEPA.preset("toy")).eval()
    >>> model.set_coordinates(torch.randn(5, 2))
    >>> fmri = torch.randn(2, 64, 5)
    >>> model(fmri).shape
    torch.Size([2, 5, 64])
    >>> loss = model.self_supervised_loss(fmri, torch.Generator().manual_seed(0))
    >>> model.update_target(progress=0.5)
    """

    encoder: Encoder
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "toy": {
            "dim": 64,
            "depth": 2,
            "n_heads": 4,
            "predictor_dim": 32,
            "predictor_depth": 1,
        },
        "vit-s": {"dim": 384, "depth": 12, "n_heads": 6},
        "vit-b": {"dim": 768, "depth": 12, "n_heads": 12},
        "vit-l": {"dim": 1024, "depth": 24, "n_heads": 16},
    }

    def __init__(
        self,
        n_regions: int,
        window: int = 160,
        *,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        n_heads: int = 12,
        predictor_dim: int = 384,
        predictor_depth: int = 6,
        n_gradients: int = 30,
        masking: str = "repaired",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            n_regions, window, patch_size=patch_size, dim=dim, n_coordinates=n_gradients
        )
        check_choice(masking, MASKINGS, "masking")
        if n_regions < FEWEST_REGIONS:
            raise ValueError(
                f"`n_regions` must be at least {FEWEST_REGIONS}. Got {n_regions}."
            )
        self.masking = masking
        self.config = {
            "n_regions": n_regions,
            "window": window,
            "patch_size": patch_size,
            "dim": dim,
            "depth": depth,
            "n_heads": n_heads,
            "predictor_dim": predictor_dim,
            "predictor_depth": predictor_depth,
            "n_gradients": n_gradients,
            "masking": masking,
        }
        n_patches = window // patch_size
        with torch.device("meta"):
            self.encoder = Encoder(
                n_patches,
                patch_size,
                dim=dim,
                depth=depth,
                n_heads=n_heads,
                n_gradients=n_gradients,
            )
            self.predictor = Predictor(
                n_patches,
                dim,
                dim=predictor_dim,
                depth=predictor_depth,
                n_heads=n_heads,
                n_gradients=n_gradients,
            )
        self._draw_weights(generator)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)

    def forward(self, fmri: Tensor, padding: Tensor | None = None) -> Tensor:
        """Embed a batch with the encoder; see also :meth:`adopt_target`.

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
        patches = Patches(fmri, self.patch_size, padding)
        tokens = self.encoder(
            patches.values, self.coordinates, absent=patches.absent_tokens()
        )
        return patches.region_means(tokens)

    def self_supervised_loss(
        self, fmri: Tensor, generator: torch.Generator, padding: Tensor | None = None
    ) -> Tensor:
        """Hide blocks and judge the predicted embeddings of hidden tokens.

        Parameters
        ----------
        fmri, padding
            See :meth:`forward`.
        generator : torch.Generator
            Draws the blocks. On the CPU, the lists of tokens are as long as they
            need to be; on a GPU, as long as they could become, which spares a wait.

        Returns
        -------
        Tensor of shape ()
            Smooth L1, mean over the targets.
        """
        n_patches = fmri.shape[1] // self.patch_size
        absent = Patches(fmri, self.patch_size, padding).absent
        context, targets = sample_blocks(
            len(fmri),
            self.n_regions,
            n_patches,
            generator,
            masking=self.masking,
            absent=absent,
        )
        longest_context, longest_targets = longest_lists(self.n_regions, n_patches)
        return self.prediction_loss(
            fmri,
            list_tokens(context, longest=longest_context, masking=self.masking),
            list_tokens(*targets, longest=longest_targets, masking=self.masking),
            padding,
        )

    def prediction_loss(
        self,
        fmri: Tensor,
        context: TokenList,
        targets: TokenList,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of predicting `targets` from `context`."""
        context = TokenList(*(part.to(fmri.device) for part in context))
        targets = TokenList(*(part.to(fmri.device) for part in targets))
        patches = Patches(fmri, self.patch_size, padding)
        values, n_patches = patches.values, patches.values.shape[2]
        with torch.no_grad():
            goal = self.target_encoder(
                values, self.coordinates, absent=patches.absent_tokens()
            )
            goal = take(F.layer_norm(goal, (self.dim,)), targets.tokens)  # (B, K, D)
        encoded = self.encoder(values, self.coordinates, *context)
        predicted = self.predictor(
            encoded, self.coordinates, n_patches, context, targets
        )
        error = F.smooth_l1_loss(predicted, goal, reduction="none").mean(-1)  # (B, K)
        error = error.masked_fill(targets.absent, 0)
        return error.sum() / (~targets.absent).sum().clamp(min=1)

    @torch.no_grad()
    def update_target(self, progress: float) -> None:
        """Move the target encoder towards the encoder, after an optimiser step.

        Parameters
        ----------
        progress : float
            Share of all steps that are done, in [0, 1]. The share of the target
            that stays grows with it from 0.996 to 1, which the released code,
            counting other steps than it takes, never reaches.
        """
        momentum = FIRST_MOMENTUM + progress * (LAST_MOMENTUM - FIRST_MOMENTUM)
        pairs = zip(
            self.target_encoder.parameters(), self.encoder.parameters(), strict=True
        )
        for target, online in pairs:
            target.mul_(momentum).add_(online, alpha=1 - momentum)

    def adopt_target(self) -> None:
        """Copy the target encoder into the encoder, as after published pretraining.

        From then on :meth:`forward` gives the embeddings of the target encoder,
        and fine-tuning starts from it.
        """
        self.encoder.load_state_dict(self.target_encoder.state_dict())

    def requires_grad_(self, requires_grad: bool = True) -> BrainJEPA:
        """Freeze or thaw everything but the target encoder, which has no gradient."""
        super().requires_grad_(requires_grad)
        self.target_encoder.requires_grad_(False)
        return self

    @property
    def blocks(self) -> nn.ModuleList:
        """Blocks of the encoder."""
        return self.encoder.blocks
