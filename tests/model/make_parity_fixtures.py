"""Write `fixtures/parity`: weights and what the official code makes of them.

Needs a copy of https://github.com/Moein-Khajehnejad/BrainSymphony at 1be0ae5, which
is run here, in double precision, and not copied:

    python tests/model/make_parity_fixtures.py PATH_OF_THE_COPY

Every size differs from every other, so that no two can be confused. The layout is
that of `../shared/parity/blocks`, which has the published widths. Weights are
multiples that half precision holds exactly, to keep the files small. The same
versions of torch and numpy give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

FIXTURES = Path(__file__).parent / "fixtures" / "parity"
CONFIG = {
    "seed": 0,
    "n_subjects": 3,
    "n_regions": 5,
    "n_timepoints": 11,
    "depth": 2,
    "dim": 12,
    "n_heads": 3,
    "mlp_dim": 20,
    "context_dim": 6,
    "n_gradients": 4,
    "perceiver_heads": 2,
    "perceiver_input_dim": 21,
    "perceiver_blocks": 2,
    "max_regions": 8,
    "multi_hops": 3,
}


def official_modules(folder: Path) -> dict[str, nn.Module]:
    """Return the official modules by name, at the sizes of CONFIG."""
    # Not `import models`, which fails at 1be0ae5.
    sys.path.insert(0, str(folder / "models"))
    from layers.context_conv import MaskedConv1DTemporalModel
    from layers.perceiver import PerceiverIOModelROIWise
    from layers.signed_graph import SignedGraphTransformer
    from layers.spatial_temporal import SpatialTransformer, TemporalTransformer

    dim, n_heads, depth = CONFIG["dim"], CONFIG["n_heads"], CONFIG["depth"]
    n_regions, n_timepoints = CONFIG["n_regions"], CONFIG["n_timepoints"]
    encoder = {
        "num_layers": depth,
        "dim": dim,
        "num_heads": n_heads,
        "mlp_dim": CONFIG["mlp_dim"],
        "time_steps": n_timepoints,
    }
    graph = {
        "num_nodes": n_regions,
        "in_dim": n_regions,
        "hidden_dim": dim,
        "num_layers": depth,
        "num_heads": n_heads,
        "max_hops": CONFIG["multi_hops"],
    }
    perceiver = PerceiverIOModelROIWise(
        CONFIG["perceiver_input_dim"],
        latent_dim=dim,
        num_rois=n_regions,
        num_heads=CONFIG["perceiver_heads"],
        time_steps=n_timepoints,
        num_transformer_blocks=CONFIG["perceiver_blocks"],
    )
    width = CONFIG["perceiver_input_dim"] // 3
    perceiver.roi_proj = nn.Linear(dim, width)  # 128 in the official code
    perceiver.time_proj = nn.Linear(dim, width)
    perceiver.signal_proj = nn.Linear(CONFIG["context_dim"], width)
    temporal = TemporalTransformer(**encoder, max_len=20)
    temporal.embedding_layer = nn.Linear(n_regions, dim)  # lazy in the official code
    modules = {
        "spatial": SpatialTransformer(**encoder, max_len=CONFIG["max_regions"]),
        "spatial_gradient": SpatialTransformer(
            **encoder,
            max_len=CONFIG["max_regions"],
            num_gradients=CONFIG["n_gradients"],
            pos_enc_type="brain_gradient",
        ),
        "temporal": temporal,
        "context": MaskedConv1DTemporalModel(signal_dim=CONFIG["context_dim"]),
        "perceiver": perceiver,
        "structural": SignedGraphTransformer(**graph),
        "structural_multi_hop": SignedGraphTransformer(
            **graph, attention_type="multi_hop"
        ),
        "structural_diffusion": SignedGraphTransformer(
            **graph, attention_type="diffusion"
        ),
        "gate": nn.Module(),
    }
    modules["gate"].gate_proj = nn.Linear(2 * dim, dim)
    return {name: module.double().eval() for name, module in modules.items()}


def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Fill `module` with numbers that half precision holds exactly."""
    for name, parameter in module.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            value = value * 1.5 / parameter.shape[-1] ** 0.5
        else:
            is_scale = "norm" in name or ".ln" in name or "_ln" in name
            value = 0.3 * value + (is_scale and name.endswith("weight"))
        parameter.data.copy_(value.half())


def draw_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """Return series, gradients, a signed sparse connectome and a mask."""
    n, r, t = CONFIG["n_subjects"], CONFIG["n_regions"], CONFIG["n_timepoints"]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).half().double()

    connectome = normal(n, r, r).triu(1) * (normal(n, r, r) > -0.5)
    return {
        "timeseries_BRT": normal(n, r, t),
        "gradients": normal(n, r, CONFIG["n_gradients"]),
        "connectome": connectome + connectome.transpose(1, 2),
        "context_mask_keep": normal(n, r, t) > -0.5,
    }


def official_outputs(
    modules: dict[str, Any], inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return what the official modules make of the inputs."""
    series, sc = inputs["timeseries_BRT"], inputs["connectome"]
    out: dict[str, Tensor] = {}
    out["spatial"], maps, positions = modules["spatial"](series)
    out["spatial_attention_first"], out["spatial_attention_last"] = maps[0], maps[-1]
    out["spatial_gradient"], _, _ = modules["spatial_gradient"](
        series, inputs["gradients"]
    )
    out["temporal"], _, _ = modules["temporal"](series)
    out["context_reconstruction"], out["context"] = modules["context"](series)
    out["context_masked_reconstruction"], _ = modules["context"](
        series, inputs["context_mask_keep"]
    )
    streams = (out["spatial"], out["temporal"], out["context"], positions)
    reconstruction, latents, weights = modules["perceiver"](*streams)
    out["perceiver_reconstruction"], out["perceiver_latents"] = reconstruction, latents
    over_time = weights.unflatten(-1, (CONFIG["n_regions"], -1)).sum(-1)
    out["perceiver_attention_region_mass"] = over_time
    for kind in ("first_hop", "multi_hop", "diffusion"):
        # One set of weights for all three: the options have none of their own.
        module = modules["structural" if kind == "first_hop" else f"structural_{kind}"]
        module.load_state_dict(modules["structural"].state_dict())
        out[f"structural_{kind}"], edges, maps = module(sc, sc, torch.ones_like(sc))
        out[f"structural_{kind}_attention_last"] = maps[-1]
        if kind == "first_hop":
            out["edge_prediction"] = edges
    gate = modules["gate"].gate_proj
    both = torch.cat([latents, out["structural_first_hop"]], -1)
    out["gate"] = gate(both).sigmoid()
    out["fused"] = (
        out["gate"] * latents + (1 - out["gate"]) * out["structural_first_hop"]
    )
    graph = modules["structural"]
    graph.positional_proj = nn.Identity()
    out["spectral_reference"] = torch.stack(
        [graph.compute_laplacian_positional_encoding(connectome) for connectome in sc]
    )
    return out


def main() -> None:
    """Run the official code and write the fixtures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("official", type=Path, help="copy of the official repository")
    modules = official_modules(parser.parse_args().official)
    generator = torch.Generator().manual_seed(CONFIG["seed"])
    for module in modules.values():
        draw_weights(module, generator)
    inputs = draw_inputs(generator)
    weights = {
        name: {key: value.half() for key, value in module.named_parameters()}
        for name, module in modules.items()
        if name not in ("structural_multi_hop", "structural_diffusion")
    }
    torch.Tensor.float = torch.Tensor.double  # the official code casts down inside
    with torch.no_grad():
        arrays = {**inputs, **official_outputs(modules, inputs)}
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name, tensors in weights.items():
        detached = {key: value.detach() for key, value in tensors.items()}
        (FIXTURES / f"{name}.safetensors").write_bytes(save(detached))
    np.savez_compressed(
        FIXTURES / "expected.npz",
        **{name: array.numpy() for name, array in arrays.items()},
    )
    (FIXTURES / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")


if __name__ == "__main__":
    main()
