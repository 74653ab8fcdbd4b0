"""Write `fixtures/rivals`: toy weights and what the original rivals make of them.

Needs a copy of https://github.com/vandijklab/BrainLM at b591d88 (with transformers
4.57.6) or of https://github.com/Eric-LRL/Brain-JEPA at b1dfa93, or both, which are
run here, in double precision, and not copied:

    python tests/model/make_rival_fixtures.py --brainlm COPY --brain-jepa COPY

The weights are ours: drawn here, and multiples that half precision holds exactly.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

FIXTURES = Path(__file__).parent / "fixtures" / "rivals"
BRAINLM = {
    "n_scans": 3,
    "n_regions": 7,
    "window": 40,
    "patch_size": 8,
    "dim": 12,
    "depth": 2,
    "n_heads": 3,
    "mlp_dim": 20,
    "decoder_depth": 1,
    "mask_ratio": 0.4,
    "convolution_kernel": 5,
}
BRAIN_JEPA = {
    "n_scans": 3,
    "n_regions": 20,
    "window": 40,  # the original works with ten patches only
    "patch_size": 4,
    "dim": 16,
    "depth": 2,
    "n_heads": 2,
    "predictor_dim": 8,
    "predictor_depth": 1,
    "n_gradients": 3,
}
SAMPLED_BATCHES, SAMPLED_SCANS = 60, 16  # of the published size, for the statistics
SHARES = {  # of the published configuration, configs/ukb_vitb_ep300.yaml
    "enc_mask_scale": (0.84, 1),
    "pred_mask_R_scale": (0.45, 0.6),
    "pred_mask_T_scale": (0.0, 0.4),
    "pred_mask_T_roi_scale": (0.2, 0.6),
    "pred_mask_R_roi_scale": (0.15, 0.3),
}


def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Fill what `module` learns with numbers that half precision holds exactly."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        value = 0.3 * torch.randn(parameter.shape, generator=generator)
        is_scale = name.endswith("weight") and "norm" in name.lower()
        parameter.data.copy_((value + is_scale).half())


def write(
    folder: Path,
    name: str,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    arrays: dict[str, Tensor | np.ndarray],
) -> None:
    """Write the three files of one rival."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {name: value.detach().clone() for name, value in weights.items()}
    (folder / f"{name}.safetensors").write_bytes(save(weights))
    arrays = {
        key: value.detach().numpy() if isinstance(value, Tensor) else value
        for key, value in arrays.items()
    }
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def brainlm(copy: Path, folder: Path, seed: int) -> None:
    """Run the original masked autoencoder."""
    sys.path.insert(0, str(copy))
    from brainlm_mae.configuration_brainlm import BrainLMConfig
    from brainlm_mae.modeling_brainlm import BrainLMForPretraining

    c = BRAINLM
    sizes = {
        "hidden_size": c["dim"],
        "num_attention_heads": c["n_heads"],
        "intermediate_size": c["mlp_dim"],
    }
    model = BrainLMForPretraining(
        BrainLMConfig(
            **sizes,
            **{f"decoder_{name}": value for name, value in sizes.items()},
            num_hidden_layers=c["depth"],
            decoder_num_hidden_layers=c["decoder_depth"],
            num_brain_voxels=c["n_regions"],
            num_timepoints_per_voxel=c["window"],
            timepoint_patching_size=c["patch_size"],
            mask_ratio=c["mask_ratio"],
            conv_kernel_size=c["convolution_kernel"],
        )
    )
    generator = torch.Generator().manual_seed(seed)
    draw_weights(model, generator)
    model.double().eval()
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    series = draw(c["n_scans"], c["n_regions"], c["window"])
    coordinates = 40 * draw(c["n_regions"], 3)
    n_tokens = c["n_regions"] * c["window"] // c["patch_size"]
    noise = torch.rand(c["n_scans"], n_tokens, generator=generator)
    inputs = {
        "signal_vectors": series,
        "xyz_vectors": coordinates.expand(c["n_scans"], -1, -1),
    }
    out = model(**inputs, noise=noise)
    out.loss.backward()
    model.config.mask_ratio = 0.0
    in_order = torch.arange(n_tokens).expand(c["n_scans"], -1)
    with torch.no_grad():
        whole = model.vit(**inputs, noise=in_order).last_hidden_state
    tokens = whole[:, 1:].unflatten(1, (c["n_regions"], -1))
    weights = {}
    for name, value in model.state_dict().items():
        if name.endswith("pos_embedding.pe"):
            value = value[:2]  # never read
        weights[name] = value.half()
    arrays = {
        "fmri": series.transpose(1, 2),
        "coordinates": coordinates,
        "noise": noise,
        "mask": out.mask,
        "prediction": out.logits[0],
        "loss": out.loss,
        "embed_gradient": model.vit.embeddings.signal_embedding_projection.weight.grad,
        "cls": whole[:, 0],
        "regions": tokens.mean(2),
    }
    write(folder, "brainlm", c, weights, arrays)


def brain_jepa(copy: Path, folder: Path, seed: int) -> None:
    """Run the original encoder, predictor and sampler."""
    flash_attn = types.ModuleType("flash_attn")  # imported, and not used on a CPU
    flash_attn.flash_attn_qkvpacked_func = None
    sys.modules.setdefault("flash_attn", flash_attn)
    sys.path.insert(0, str(copy))
    from src.masks.spatialtemporal_multiblock import MaskCollator_fmri
    from src.masks.utils import apply_masks
    from src.models.vision_transformer import VisionTransformer, vit_predictor

    c = BRAIN_JEPA
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    gradients = 0.1 * draw(c["n_regions"], c["n_gradients"])
    common = {
        "gradient_pos_embed": gradients.unsqueeze(0),
        "attn_mode": "normal",
        "add_w": "mapping",
        "num_heads": c["n_heads"],
    }

    def make_encoder() -> nn.Module:
        return VisionTransformer(
            img_size=(c["n_regions"], c["window"]),
            patch_size=c["patch_size"],
            in_chans=1,
            embed_dim=c["dim"],
            depth=c["depth"],
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            **common,
        )

    encoder, target_encoder = make_encoder(), make_encoder()
    predictor = vit_predictor(
        num_patches=encoder.patch_embed.num_patches,
        num_patches_2d=encoder.patch_embed.num_patches_2d,
        embed_dim=c["dim"],
        predictor_embed_dim=c["predictor_dim"],
        depth=c["predictor_depth"],
        **common,
    )
    modules = {
        "encoder": encoder,
        "predictor": predictor,
        "target_encoder": target_encoder,
    }
    for module in modules.values():
        draw_weights(module, generator)
        module.double().eval()
    series = draw(c["n_scans"], 1, c["n_regions"], c["window"])
    torch.manual_seed(seed)  # the original draws from the global generator
    sampler = MaskCollator_fmri(
        (c["n_regions"], c["window"]), c["patch_size"], **SHARES
    )
    _, context, targets = sampler([torch.zeros(1)] * c["n_scans"])
    with torch.no_grad():
        whole = target_encoder(series)
        goal = apply_masks(F.layer_norm(whole, (c["dim"],)), targets)
    predicted = predictor(encoder(series, context), context, targets)
    loss = F.smooth_l1_loss(predicted, goal)
    loss.backward()
    weights = {
        f"{part}.module.{name}": value.float() if "emb_h" in name else value.half()
        for part, module in modules.items()
        for name, value in module.state_dict().items()
    }
    arrays = {
        "fmri": series[:, 0].transpose(1, 2),
        "coordinates": gradients,
        "context": context[0],
        "targets": targets[0],
        "predicted": predicted,
        "loss": loss,
        "embed_gradient": encoder.patch_embed.proj.weight.grad.flatten(1),
        "regions": whole.unflatten(1, (c["n_regions"], -1)).mean(2),
        **sampler_statistics(partial(MaskCollator_fmri, (450, 160), 16, **SHARES)),
    }
    write(folder, "brain_jepa", c, weights, arrays)


def sampler_statistics(make_sampler: Callable[[], Any]) -> dict[str, np.ndarray]:
    """Return how often the original shows and asks for a token, and how many."""
    sampler = make_sampler()
    seen, asked = torch.zeros(450 * 10), torch.zeros(450 * 10)
    sizes = []
    for _ in range(SAMPLED_BATCHES):
        _, context, targets = sampler([torch.zeros(1)] * SAMPLED_SCANS)
        for total, chosen in ((seen, context[0]), (asked, targets[0])):
            total.index_add_(0, chosen.flatten(), torch.ones(chosen.numel()))
        sizes.append((context[0].shape[1], targets[0].shape[1]))
    n_scans = SAMPLED_BATCHES * SAMPLED_SCANS
    out = {"sampled_sizes": np.array(sizes, dtype=np.float32).mean(0)}
    for name, total in (("context", seen), ("targets", asked)):
        share = (total / n_scans).view(450, 10)
        out[f"{name}_by_patch"] = share.mean(0).numpy()
        out[f"{name}_by_region"] = share.mean(1).view(10, 45).mean(1).numpy()
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brainlm", type=Path)
    parser.add_argument("--brain-jepa", type=Path)
    parser.add_argument("--to", type=Path, default=FIXTURES)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.brainlm is not None:
        brainlm(arguments.brainlm, arguments.to, arguments.seed)
    if arguments.brain_jepa is not None:
        brain_jepa(arguments.brain_jepa, arguments.to, arguments.seed)
