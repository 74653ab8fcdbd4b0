"""Published weights of BrainLM and Brain-JEPA, which users bring, in our models.

No weights come with this package: their licences forbid it. Facts on the files:
https://github.com/vandijklab/BrainLM at b591d88 and
https://github.com/Eric-LRL/Brain-JEPA at b1dfa93.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bsym_sklearn.exceptions import BrainSymphonyWarning, CheckpointError
from bsym_sklearn.model.brain_jepa import FEWEST_REGIONS, BrainJEPA
from bsym_sklearn.model.brain_jepa_layers import Encoder, Predictor
from bsym_sklearn.model.brainlm import BrainLM
from bsym_sklearn.model.patches import PatchBackbone
from bsym_sklearn.training.checkpoints import load_weights
from bsym_sklearn.training.reference import DAMAGED, _is_weight, _without_prefix

Tensors = dict[str, Tensor]

COORDINATES = "coordinates"  # ours, in no published file
EMBEDDING_HEAD_DIM = 64  # channels per head of every published vision transformer
TABLE_TOLERANCE = 1e-5  # of the fixed positions, computed in another precision

# Published name -> ours, for modules (their .weight and .bias) and single tensors.
BRAINLM_BLOCK = {
    "attention.self.query": "attention.query",  # joined, see _joined
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.self.conv": "attention.convolution",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.expand",
    "output.dense": "feed_forward.contract",
    "output.LayerNorm": "feed_forward_norm",
}
BRAINLM_NAMES = {
    "vit.embeddings.cls_token": "encoder.cls_token",
    "vit.embeddings.signal_embedding_projection": "encoder.embed",
    "vit.embeddings.xyz_embedding_projection": "encoder.stack.places.project",
    "vit.layernorm": "encoder.stack.norm",
    "decoder.mask_token": "decoder.mask_token",
    "decoder.decoder_embed": "decoder.embed",
    "decoder.decoder_xyz_projection": "decoder.stack.places.project",
    "decoder.decoder_norm": "decoder.stack.norm",
    "decoder.decoder_pred1": "decoder.head.0",
    "decoder.decoder_pred2": "decoder.head.2",
}
BRAINLM_BLOCKS = {
    "vit.encoder.layer": "encoder.stack.blocks",
    "decoder.decoder_layers": "decoder.stack.blocks",
}
# Left over from the classes that the released ones inherit from, never read; and
# the sinusoids, which we compute.
BRAINLM_DEAD = {
    "decoder.decoder_pred.weight",
    "decoder.decoder_pred.bias",
    "vit.embeddings.pos_embedding.pe",
    "decoder.pos_embedding.pe",
}

JEPA_BLOCK = {
    "norm1": "attention_norm",
    "attn.qkv": "attention.query_key_value",
    "attn.proj": "attention.out",
    "norm2": "feed_forward_norm",
    "mlp.fc1": "feed_forward.expand",
    "mlp.fc2": "feed_forward.contract",
}
JEPA_ENCODER = {
    "patch_embed.proj": "embed",
    "pos_embed_proj.predictor_pos_embed_proj": "places.project",
    "norm": "norm",
}
JEPA_PREDICTOR = {
    "mask_token": "mask_token",
    "predictor_embed": "embed",
    "predictor_2dpe_proj.predictor_pos_embed_proj": "places.project",
    "predictor_norm": "norm",
    "predictor_proj": "out",
}
# Entry of the file -> our module, names, blocks and the table of fixed positions.
JEPA_PARTS = {
    "encoder": ("encoder", JEPA_ENCODER, "blocks", "pos_embed_proj.emb_h"),
    "predictor": (
        "predictor",
        JEPA_PREDICTOR,
        "predictor_blocks",
        "predictor_2dpe_proj.emb_h",
    ),
    "target_encoder": (
        "target_encoder",
        JEPA_ENCODER,
        "blocks",
        "pos_embed_proj.emb_h",
    ),
}


@dataclass(frozen=True)
class Source:
    """Which file is read, and for whom: what every error tells.

    Parameters
    ----------
    caller : str
        Public function.
    path : path-like
        As the user gave it.
    """

    caller: str
    path: str | os.PathLike[str]

    def error(self, needs: str, problem: str, advice: str) -> CheckpointError:
        """Return the error for a file that is not what it should be."""
        return CheckpointError(
            f"{self.caller} needs {needs}. Got '{self.path}', {problem}. {advice}"
        )


def load_brainlm_checkpoint(
    path: str | os.PathLike[str],
    *,
    n_regions: int = 424,
    window: int = 200,
    n_heads: int = 4,
    coordinates: Tensor | None = None,
) -> BrainLM:
    """Read weights of the published masked autoencoder ("old_13M" and its kin).

    Widths and depths are read off the weights, and the number of heads too where
    there is a convolution. The weights suit any number of regions and patches. The
    published image models (111M, 650M) are another architecture.

    Parameters
    ----------
    path : path-like
        ``pytorch_model.bin`` or ``model.safetensors``.
    n_regions, window : int, default=424, 200
        Regions and time points of the data to come; these are cut to whole patches.
    n_heads : int, default=4
        Attention heads, where the weights do not tell.
    coordinates : Tensor of shape (n_regions, 3) or None, default=None
        Centres of the regions, in mm.

    Returns
    -------
    BrainLM
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or could run code, or if a weight is
        missing, unexpected or of another shape.
    ValueError
        If the window is shorter than a patch, or the width is not a multiple of the
        number of heads.

    Warns
    -----
    BrainSymphonyWarning
        Without `coordinates`, which are then still to be set. (The published medians
        and quartiles by which the series were scaled were never released.)

    References
    ----------
    .. [1] Ortega Caro et al. (2024). BrainLM: a foundation model for brain
       activity recordings. ICLR.

    Examples
    --------
    >>> load_brainlm_checkpoint("nowhere.bin")
    Traceback (most recent call last):
    bsym_sklearn.exceptions.CheckpointError: load_brainlm_checkpoint needs ...
    """
    source = Source("load_brainlm_checkpoint", path)
    content = _read(source)
    if not all(map(_is_weight, content.items())):
        raise _not_tensors(source)
    tensors = _without_prefix(content, "module.")
    tensors = {name: t for name, t in tensors.items() if name not in BRAINLM_DEAD}
    convolution, kernel = "vit.encoder.layer.0.attention.self.conv.weight", None
    if convolution in tensors:
        n_heads, _, kernel, _ = _shape(tensors, convolution, 4, source)
    dim, patch_size = _shape(
        tensors, "vit.embeddings.signal_embedding_projection.weight", 2, source
    )
    mlp_dim, _ = _shape(
        tensors, "vit.encoder.layer.0.intermediate.dense.weight", 2, source
    )
    if window < patch_size:
        raise ValueError(
            f"{source.caller} needs a `window` of at least {patch_size} time points, a "
            f"patch of '{path}'. Got {window}. Use a longer one."
        )
    model = BrainLM(
        n_regions,
        window // patch_size * patch_size,
        patch_size=patch_size,
        dim=dim,
        depth=_n_blocks(tensors, "vit.encoder.layer"),
        n_heads=n_heads,
        mlp_dim=mlp_dim,
        decoder_depth=_n_blocks(tensors, "decoder.decoder_layers"),
        convolution_kernel=kernel,
    )
    ours = {}
    for name, tensor in tensors.items():
        renamed = _brainlm_name(name)
        ours[renamed] = tensor.flatten() if renamed.endswith("_token") else tensor
    ours[COORDINATES] = model.coordinates
    load_weights(model, _joined(ours), source=f"'{path}'")
    _place(model, coordinates, "centres of the regions, in mm")
    return model.eval()


def load_brain_jepa_checkpoint(
    path: str | os.PathLike[str],
    *,
    n_heads: int | None = None,
    coordinates: Tensor | None = None,
) -> BrainJEPA:
    """Read weights of the published joint-embedding model ("jepa-ep300.pth.tar").

    All sizes but the number of heads are read off the weights. The encoder gets the
    weights of the target encoder, as in the published evaluation.

    Parameters
    ----------
    path : path-like
        A file of torch with ``encoder``, ``predictor`` and ``target_encoder``, or
        one of safetensors with these as first part of every name.
    n_heads : int or None, default=None
        Attention heads. None for one per 64 channels, as in all published sizes.
    coordinates : Tensor of shape (n_regions, K) or None, default=None
        Gradients of the regions, from the first; as many are used as the weights need.

    Returns
    -------
    BrainJEPA
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or could run code, or if a weight is
        missing, unexpected or of another shape.
    ValueError
        If a width is not a multiple of the number of heads.

    Warns
    -----
    BrainSymphonyWarning
        Without `coordinates`, which are then still to be set.

    References
    ----------
    .. [1] Dong et al. (2024). Brain-JEPA: brain dynamics foundation model with
       gradient positioning and spatiotemporal masking. NeurIPS.

    Examples
    --------
    >>> load_brain_jepa_checkpoint("nowhere.pth.tar")
    Traceback (most recent call last):
    bsym_sklearn.exceptions.CheckpointError: load_brain_jepa_checkpoint needs ...
    """
    source = Source("load_brain_jepa_checkpoint", path)
    parts = _jepa_parts(_read(source), source)
    encoder, predictor = parts["encoder"], parts["predictor"]
    dim, _, _, patch_size = _shape(
        encoder, "patch_embed.proj.weight", 4, source
    )  # a convolution over (region, time)
    _shape(encoder, "pos_embed_proj.emb_h", 2, source)
    n_regions, n_patches = _jepa_grid(encoder["pos_embed_proj.emb_h"], source)
    _, n_gradients = _shape(
        encoder, "pos_embed_proj.predictor_pos_embed_proj.weight", 2, source
    )
    predictor_dim, _ = _shape(predictor, "predictor_embed.weight", 2, source)
    model = BrainJEPA(
        n_regions,
        n_patches * patch_size,
        patch_size=patch_size,
        dim=dim,
        depth=_n_blocks(encoder, "blocks"),
        n_heads=max(dim // EMBEDDING_HEAD_DIM, 1) if n_heads is None else n_heads,
        predictor_dim=predictor_dim,
        predictor_depth=_n_blocks(predictor, "predictor_blocks"),
        n_gradients=n_gradients,
    )
    ours = {COORDINATES: model.coordinates}
    for part, tensors in parts.items():
        prefix, names, blocks, fixed = JEPA_PARTS[part]
        _check_table(model, prefix, tensors.pop(fixed, None), source)
        for name, tensor in tensors.items():
            renamed = _renamed(name, names, {blocks: "blocks"}, JEPA_BLOCK)
            key = f"{part}: {name}" if renamed is None else f"{prefix}.{renamed}"
            ours[key] = _jepa_shaped(tensor, renamed)
    load_weights(model, ours, source=f"'{path}'")
    model.adopt_target()
    first = None if coordinates is None else coordinates[:, :n_gradients]
    _place(model, first, "gradients of the regions")
    return model.eval()


def _read(source: Source) -> dict[str, Any]:
    """Return what a file holds, without running anything in it."""
    path = Path(source.path)
    if not path.is_file():
        raise source.error(
            "a file of weights", "which is not a file", "Check the path."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path, device="cpu")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGED, SafetensorError) as error:
        # The cause is not chained: torch's own text advises to load without care.
        raise source.error(
            "a file of tensors",
            "which is damaged, or holds more than tensors and could run code "
            f"({type(error).__name__})",
            "Download or save it again.",
        ) from None
    if not isinstance(content, dict) or not all(isinstance(n, str) for n in content):
        raise _not_tensors(source)
    return content


def _not_tensors(source: Source) -> CheckpointError:
    """Return the error for a file with something else in it."""
    return source.error(
        "a file of tensors by name, in floating point",
        "which holds something else",
        "Save the `state_dict`.",
    )


def _jepa_parts(content: Mapping[str, Any], source: Source) -> dict[str, Tensors]:
    """Return the tensors of the three modules; what belongs to training is left."""
    parts: dict[str, Tensors] = {}
    for part in JEPA_PARTS:
        tensors = content.get(part)
        if tensors is None:  # safetensors have no levels
            start = f"{part}."
            named = [name for name in content if name.startswith(start)]
            tensors = {name.removeprefix(start): content[name] for name in named}
        if not tensors:
            raise source.error(
                ", ".join(JEPA_PARTS),
                f"which has no {part}",
                "Take the file that pretraining wrote.",
            )
        if not isinstance(tensors, dict) or not all(map(_is_weight, tensors.items())):
            raise _not_tensors(source)
        parts[part] = _without_prefix(tensors, "module.")
    return parts


def _shape(
    tensors: Mapping[str, Tensor], name: str, n_axes: int, source: Source
) -> tuple[int, ...]:
    """Return the shape of a tensor that tells the sizes of the model."""
    shape = tuple(tensors[name].shape) if name in tensors else ()
    if len(shape) != n_axes or 0 in shape:
        raise source.error(
            f"'{name}' with {n_axes} axes to tell the sizes of the model",
            f"which has it with shape {shape}" if shape else "which does not have it",
            "Check that the file is the right one.",
        )
    return shape


def _jepa_grid(table: Tensor, source: Source) -> tuple[int, int]:
    """Return the numbers of regions and patches of the table of time positions."""
    n_regions = int((table == table[0]).all(1).sum())  # one first patch per region
    if n_regions < FEWEST_REGIONS or len(table) % n_regions:
        raise _other_table(source)
    return n_regions, len(table) // n_regions


def _n_blocks(tensors: Mapping[str, Tensor], blocks: str) -> int:
    """Return how many blocks there are."""
    found = (re.match(rf"{re.escape(blocks)}\.(\d+)\.", name) for name in tensors)
    return len({block.group(1) for block in found if block})


def _renamed(
    name: str,
    names: Mapping[str, str],
    blocks: Mapping[str, str],
    block_names: Mapping[str, str],
) -> str | None:
    """Return our name of a tensor, or None if there is none."""
    for theirs, ours in blocks.items():
        block = re.fullmatch(rf"{re.escape(theirs)}\.(\d+)\.(.+)\.(\w+)", name)
        if block:
            number, module, kind = block.groups()
            known = block_names.get(module)
            return None if known is None else f"{ours}.{number}.{known}.{kind}"
    if name in names:
        return names[name]
    module, _, kind = name.rpartition(".")
    return f"{names[module]}.{kind}" if module in names else None


def _brainlm_name(name: str) -> str:
    """Return our name, or one that cannot be ours, which load_weights reports."""
    ours = _renamed(name, BRAINLM_NAMES, BRAINLM_BLOCKS, BRAINLM_BLOCK)
    return f"published: {name}" if ours is None else ours


def _joined(tensors: Tensors) -> Tensors:
    """Join the queries, keys and values of every block, where all are there."""
    joined = dict(tensors)
    for name in tensors:
        if ".attention.query." in name:
            three = [name.replace("query", kind) for kind in ("query", "key", "value")]
            if all(part in joined for part in three):
                together = torch.cat([joined.pop(part) for part in three])
                joined[name.replace("query", "query_key_value")] = together
    return joined


def _jepa_shaped(tensor: Tensor, name: str | None) -> Tensor:
    """Return a tensor in our shape: tokens and patch embedding have fewer axes."""
    if name == "embed.weight" and tensor.ndim == 4:
        return tensor.flatten(1)
    return tensor.flatten() if name == "mask_token" else tensor


def _check_table(
    model: BrainJEPA, part: str, table: Tensor | None, source: Source
) -> None:
    """Raise unless the fixed positions in the file are those of the model."""
    module: Encoder | Predictor = getattr(model, part)
    ours = module.places.time.repeat(model.n_regions, 1)
    if table is None or table.shape != ours.shape:
        raise _other_table(source)
    if not bool(((table - ours).abs() <= TABLE_TOLERANCE).all()):
        raise _other_table(source)


def _other_table(source: Source) -> CheckpointError:
    """Return the error for a file of a model with other fixed positions."""
    return source.error(
        "the published table of time positions, 'emb_h', in all three parts",
        "which has none or another",
        "Check that the file is the right one.",
    )


def _place(model: PatchBackbone, coordinates: Tensor | None, what: str) -> None:
    """Set the places of the regions, or say that the weights do not hold them."""
    if coordinates is not None:
        model.set_coordinates(coordinates)
        return
    warnings.warn(
        f"The published weights do not hold the {what}: they are zero until you call "
        "`set_coordinates`.",
        BrainSymphonyWarning,
        stacklevel=3,
    )
