"""Weights of the official implementation in our model.

Facts on its files: https://github.com/Moein-Khajehnejad/BrainSymphony at 1be0ae5.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsym_sklearn.exceptions import BrainSymphonyWarning, CheckpointError
from bsym_sklearn.model.brainsymphony import BrainSymphony
from bsym_sklearn.training.checkpoints import load_weights

# Official name -> ours, for modules (their .weight and .bias) and single tensors.
BLOCK_NAMES = {
    "norm1": "attention_norm",
    "attn.qkv": "attention.query_key_value",
    "attn.fc_out": "attention.out",
    "norm2": "feed_forward_norm",
    "mlp.0": "feed_forward.expand",
    "mlp.2": "feed_forward.contract",
}


@dataclass(frozen=True)
class Part:
    """One official file: where it lies, what its tensors are called here.

    Parameters
    ----------
    file : str
        Path inside the checkpoint folder.
    prefix : str
        Our module.
    names : mapping
        Official names of modules and tensors to ours.
    sizes : mapping
        Parameter of BrainSymphony to the tensor and the axis that tell it.
    unused : mapping
        Official tensor to others that are never read when it is there.
    blocks : str, default="layers"
        Official name of the list of blocks; ours is ``blocks``.
    depth : str or None, default=None
        Parameter of BrainSymphony that counts the blocks.
    """

    file: str
    prefix: str
    names: Mapping[str, str]
    sizes: Mapping[str, tuple[str, int]]
    unused: Mapping[str, set[str]] = field(default_factory=dict)
    blocks: str = "layers"
    depth: str | None = None


SPATIAL = Part(
    file="functional_v1/spatial.pth",
    prefix="fmri.spatial",
    names={
        **BLOCK_NAMES,
        "embedding_layer": "embed",
        "pos_enc.pe": "positions.table",
        "pos_enc.proj": "positions.project",
        "pos_enc.ln": "positions.norm",
        "pos_enc.alpha": "positions.alpha",
    },
    sizes={
        "dim": ("embedding_layer.weight", 0),
        "window": ("embedding_layer.weight", 1),
        "mlp_dim": ("layers.0.mlp.0.weight", 0),
    },
    unused={"pos_enc.pe": {"pos_enc.ln.weight", "pos_enc.ln.bias", "pos_enc.alpha"}},
    depth="depth",
)
TEMPORAL = Part(
    file="functional_v1/temporal.pth",
    prefix="fmri.temporal",
    names={**BLOCK_NAMES, "embedding_layer": "embed"},
    sizes={
        "dim": ("embedding_layer.weight", 0),
        "n_regions": ("embedding_layer.weight", 1),
        "mlp_dim": ("layers.0.mlp.0.weight", 0),
    },
    unused={"pos_enc.pe": {"pos_enc.pe"}},  # the sinusoids, which we compute
    depth="temporal_depth",
)
CONTEXT = Part(
    file="functional_v1/context.pth",
    prefix="fmri.context",
    names={
        "mask_token": "mask_token",
        "conv1d": "convolution",
        "decoder.0": "decoder.0",
        "decoder.2": "decoder.2",
        "decoder.4": "decoder.4",
    },
    sizes={"context_dim": ("conv1d.weight", 0)},
)
PERCEIVER = Part(
    file="functional_v1/fusion.pth",
    prefix="fmri.perceiver",
    names={
        **BLOCK_NAMES,
        "latents": "latents",
        "roi_proj": "from_region",
        "time_proj": "from_time",
        "signal_proj": "from_signal",
        "input_proj": "join",
        "input_ln": "token_norm",
        "cross_attn.in_proj_weight": "in_proj.weight",  # see _adapt
        "cross_attn.in_proj_bias": "in_proj.bias",
        "cross_attn.out_proj": "out",
        "cross_attn_norm": "latent_norm",
        "head.0": "head.0",
        "head.2": "head.2",
    },
    sizes={
        "dim": ("latents", 1),
        "n_regions": ("latents", 0),
        "window": ("head.2.weight", 0),
        "context_dim": ("signal_proj.weight", 1),
        "projection_dim": ("roi_proj.weight", 0),
        "perceiver_mlp_dim": ("latent_transformers.0.mlp.0.weight", 0),
    },
    blocks="latent_transformers",
    depth="perceiver_depth",
)
STRUCTURAL = Part(
    file="structural_v1/structural.pth",
    prefix="sc",
    names={
        "pos_embed": "table",
        "input_proj": "embed",
        "positional_proj": "project",
        "q_linear": "attention.query",
        "k_linear": "attention.key",
        "v_linear": "attention.value",
        "out_linear": "attention.out",
        "layer_norm1": "attention_norm",
        "layer_norm2": "feed_forward_norm",
        "ffn.0": "feed_forward.expand",
        "ffn.2": "feed_forward.contract",
        "edge_weight_predictor.0": "edges.pair",
        "edge_weight_predictor.2": "edges.rest.1",
        "edge_weight_predictor.4": "edges.rest.3",
    },
    sizes={
        "dim": ("input_proj.weight", 0),
        "n_regions": ("input_proj.weight", 1),
        "structural_mlp_dim": ("layers.0.ffn.0.weight", 0),
    },
    unused={"pos_embed": {"positional_proj.weight", "positional_proj.bias"}},
    depth="structural_depth",
)
FUNCTIONAL = (SPATIAL, TEMPORAL, CONTEXT, PERCEIVER)
PARTS = (*FUNCTIONAL, STRUCTURAL)
GRADIENTS = ("pos_enc.proj.weight", 1)  # in SPATIAL, if its positions are gradients

# Ours that no official file has. Without masking the tokens take no part.
MASK_TOKENS = {"fmri.spatial.mask_token", "fmri.temporal.mask_token", "sc.mask_token"}
COORDINATES = "fmri.spatial.positions.coordinates"  # official: an argument

WRAPPERS = ("state_dict", "model_state_dict")

# What torch.load raises on damaged files, found by damaging some.
DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_reference_checkpoint(
    folder: str | os.PathLike[str],
    *,
    n_heads: int = 4,
    perceiver_heads: int = 2,
    structural_heads: int = 4,
) -> BrainSymphony:
    """Read weights of the official implementation.

    Every size is read off the weights: regions, time points, widths and depths of
    each part, and the kind of positions. The numbers of heads cannot be, nor can
    the edge weights of the structural stream, taken to be ``"first_hop"``.

    A folder with one of the two branches gives a model of that modality. With both,
    there is a gate, which was never published: it keeps its seeded start, so that
    `fused` comes from an untrained gate. A warning says so.

    Parameters
    ----------
    folder : path-like
        Holds ``functional_v1/`` with ``spatial.pth``, ``temporal.pth``,
        ``context.pth`` and ``fusion.pth`` (the Perceiver), or ``structural_v1/``
        with ``structural.pth``, or both.
    n_heads, perceiver_heads, structural_heads : int, default=4, 2, 4
        Heads of the spatial and temporal streams, the Perceiver and the structural
        stream.

    Returns
    -------
    BrainSymphony
        In evaluation mode, float32, on the CPU. Where the spatial stream has
        gradient positions, give it the gradients with ``set_coordinates``.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or could run code; if the files do not fit
        together; or if a weight is missing, unexpected or of another shape.
    ValueError
        If a width is not a multiple of its number of heads.

    Warns
    -----
    BrainSymphonyWarning
        If the gate is untrained, or gradients are still to be set.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314;
       released code, load_pretrained_model.py.

    Examples
    --------
    >>> load_reference_checkpoint("nowhere")
    Traceback (most recent call last):
    bsym_sklearn.exceptions.CheckpointError: load_reference_checkpoint needs ...
    """
    files = _read_files(Path(folder))
    model = BrainSymphony(
        **_sizes(files),
        n_heads=n_heads,
        perceiver_heads=perceiver_heads,
        structural_heads=structural_heads,
    )
    tensors = _unpublished(model)
    for part in PARTS:
        if part.file in files:
            tensors |= _translated(part, files[part.file])
    load_weights(model, _adapt(tensors, model), source=f"'{folder}'")
    if model.gate is not None:
        warnings.warn(
            "The official weights have no gate: `gate` and `fused` are untrained. "
            "Use `latents` and `structural`, or train the gate.",
            BrainSymphonyWarning,
            stacklevel=2,
        )
    if COORDINATES in tensors:
        warnings.warn(
            "The positions are gradients, which the official weights do not hold: "
            "they are zero until you call `set_coordinates`.",
            BrainSymphonyWarning,
            stacklevel=2,
        )
    return model.eval()


def _read_files(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of every file, of one branch or both."""
    found = [part.file for part in PARTS if (folder / part.file).is_file()]
    if not found:
        raise CheckpointError(
            "load_reference_checkpoint needs a folder with functional_v1 or "
            f"structural_v1 in the official layout. Got '{folder}' with neither. "
            "Check the path."
        )
    functional = [part.file for part in FUNCTIONAL]
    missing = [file for file in functional if file not in found]
    if missing and len(missing) < len(functional):
        raise CheckpointError(
            f"load_reference_checkpoint needs all of {', '.join(functional)}. "
            f"Got '{folder}' without {', '.join(missing)}. Add what is missing, or "
            "remove functional_v1 to load the structural branch alone."
        )
    files = {file: _read(folder / file) for file in found}
    if STRUCTURAL.file in files:
        encoder = files[STRUCTURAL.file]
        files[STRUCTURAL.file] = _without_prefix(encoder, "encoder.")
    return files


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors in one file, without running anything in it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        # The cause is not chained: torch's own text advises to load without care.
        if "UninitializedParameter" in str(error):
            problem = "has no shapes, as it was saved before the model saw data"
        elif isinstance(error, pickle.UnpicklingError):
            problem = "is damaged, or holds more than tensors and could run code"
        else:
            problem = f"is damaged or no file of torch ({type(error).__name__})"
        raise CheckpointError(
            f"load_reference_checkpoint needs a file of tensors. Got '{path}', which "
            f"{problem}. Download or save it again."
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(map(_is_weight, content.items())):
        raise CheckpointError(
            "load_reference_checkpoint needs a file of tensors by name, in floating "
            f"point. Got '{path}', which holds something else. Save the `state_dict`."
        )
    return _without_prefix(content, "module.")


def _is_weight(item: tuple[Any, Any]) -> bool:
    """Return whether an entry of a file is a named, ordinary tensor."""
    name, value = item
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout == torch.strided
        and not value.is_meta
    )


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Drop what a wrapper put before every name."""
    if not all(name.startswith(prefix) for name in tensors):
        return tensors
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def _sizes(files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return the parameters of BrainSymphony that the files tell and agree on."""
    told: dict[str, dict[str, int]] = {}  # parameter -> file -> value
    for part in PARTS:
        if part.file in files:
            for name, value in _sizes_of(part, files[part.file]).items():
                told.setdefault(name, {})[part.file] = value
    conflicts = [
        f"{name} is "
        + ", ".join(f"{value} in {file}" for file, value in values.items())
        for name, values in told.items()
        if len(set(values.values())) > 1
    ]
    if conflicts:
        raise CheckpointError(
            "load_reference_checkpoint needs files of one model. "
            f"Got files that disagree: {'; '.join(conflicts)}. Take all of them from "
            "the same training."
        )
    return {
        **{name: next(iter(values.values())) for name, values in told.items()},
        **_choices(files),
    }


def _sizes_of(part: Part, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the parameters of BrainSymphony that one file tells."""
    sizes = {name: _size(part, tensors, *at) for name, at in part.sizes.items()}
    if part is SPATIAL and GRADIENTS[0] in tensors:
        sizes["n_gradients"] = _size(part, tensors, *GRADIENTS)
    if part.depth is not None:
        blocks = (re.match(rf"{part.blocks}\.(\d+)\.", name) for name in tensors)
        sizes[part.depth] = len({block.group(1) for block in blocks if block})
    return sizes


def _size(part: Part, tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Return the length of one axis of one tensor."""
    shape = tensors[name].shape if name in tensors else ()
    if axis >= len(shape) or shape[axis] == 0:
        got = f"of shape {tuple(shape)}" if name in tensors else "nowhere"
        raise CheckpointError(
            f"load_reference_checkpoint needs '{name}' in {part.file} to tell the "
            f"sizes of the model. Got it {got}. Check that the file is the right one."
        )
    return shape[axis]


def _choices(files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return the options of BrainSymphony that the files tell."""
    gradient = GRADIENTS[0] in files.get(SPATIAL.file, {})
    learned = "pos_embed" in files.get(STRUCTURAL.file, {})
    branches = (("fmri", SPATIAL), ("sc", STRUCTURAL))
    return {
        "modalities": tuple(name for name, part in branches if part.file in files),
        "positions": "gradient" if gradient else "learned",
        "structural_positions": "learned" if learned else "reference",
    }


def _translated(part: Part, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one file under our names."""
    unused: set[str] = set()
    for marker, names in part.unused.items():
        if marker in tensors:
            unused |= names
    return {
        _our_name(part, name): value.float()
        for name, value in tensors.items()
        if name not in unused
    }


def _our_name(part: Part, name: str) -> str:
    """Return our name, or one that cannot be ours, which load_weights reports."""
    inner, prefix = name, part.prefix
    block = re.fullmatch(rf"{part.blocks}\.(\d+)\.(.+)", name)
    if block:
        inner, prefix = block.group(2), f"{prefix}.blocks.{block.group(1)}"
    module, _, kind = inner.rpartition(".")
    if inner in part.names:
        return f"{prefix}.{part.names[inner]}"
    if module in part.names:
        return f"{prefix}.{part.names[module]}.{kind}"
    return f"{part.file}: {name}"


def _adapt(tensors: dict[str, Tensor], model: BrainSymphony) -> dict[str, Tensor]:
    """Cut the tensors whose official form is another one to ours."""
    adapted = dict(tensors)
    table = adapted.get("fmri.spatial.positions.table")
    if table is not None and table.ndim == 3 and len(table) == 1:  # (1, R or more, D)
        adapted["fmri.spatial.positions.table"] = table[0, : model.n_regions]
    for kind in ("weight", "bias"):
        joined = adapted.pop(f"fmri.perceiver.in_proj.{kind}", None)
        if joined is not None:  # (3 D, ...)
            query, key_value = torch.atleast_1d(joined).tensor_split([model.dim])
            adapted[f"fmri.perceiver.query.{kind}"] = query
            adapted[f"fmri.perceiver.key_value.{kind}"] = key_value
    return adapted


def _unpublished(model: BrainSymphony) -> dict[str, Tensor]:
    """Return the tensors that no official file has: zero tokens, the rest as is."""
    return {
        name: torch.zeros_like(value) if name in MASK_TOKENS else value
        for name, value in model.state_dict().items()
        if name in MASK_TOKENS or name == COORDINATES or name.startswith("gate.")
    }
