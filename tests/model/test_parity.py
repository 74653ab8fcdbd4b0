"""Our model with the official weights gives the official outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bsym_sklearn.model import BrainSymphony
from bsym_sklearn.model.functional import FMRIInput
from bsym_sklearn.model.structural import spectral_coordinates
from bsym_sklearn.training.checkpoints import load_weights
from bsym_sklearn.training.reference import load_reference_checkpoint

TOLERANCE = 1e-9  # absolute, in float64
# arccos near 1 turns rounding of 1e-16 into 1e-8.
SPECTRAL_TOLERANCE = 1e-7
SMALL = Path(__file__).parent / "fixtures" / "parity"
INPUTS = ("timeseries_BRT", "gradients", "connectome", "context_mask_keep")
EDGE_WEIGHTS = ("first_hop", "multi_hop", "diffusion")
OUTPUTS = (
    "spatial",
    "spatial_attention_first",
    "spatial_attention_last",
    "spatial_gradient",
    "temporal",
    "context",
    "context_reconstruction",
    "context_masked_reconstruction",
    "perceiver_latents",
    "perceiver_reconstruction",
    "perceiver_attention_region_mass",
    *(f"structural_{kind}" for kind in EDGE_WEIGHTS),
    *(f"structural_{kind}_attention_last" for kind in EDGE_WEIGHTS),
    "edge_prediction",
    "gate",
    "fused",
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::bsym_sklearn.exceptions.BrainSymphonyWarning"
)


@pytest.fixture(scope="module", params=["small", "published widths"])
def blocks(request: pytest.FixtureRequest) -> Path:
    """Return a folder of official weights, inputs and outputs."""
    if request.param == "small":
        return SMALL
    return request.getfixturevalue("shared") / "parity" / "blocks"


@pytest.fixture(scope="module")
def expected(blocks: Path) -> dict[str, np.ndarray]:
    with np.load(blocks / "expected.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def ours(
    blocks: Path,
    expected: dict[str, np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Tensor]:
    config = json.loads((blocks / "config.json").read_text())
    inputs = {name: torch.from_numpy(expected[name]) for name in INPUTS}

    def load(spatial: str = "spatial", structural: str = "structural") -> BrainSymphony:
        """Load through the official layout, as a user does."""
        files = {
            "functional_v1/spatial": spatial,
            "functional_v1/temporal": "temporal",
            "functional_v1/context": "context",
            "functional_v1/fusion": "perceiver",
            "structural_v1/structural": structural,
        }
        folder = tmp_path_factory.mktemp("official")
        for to, name in files.items():
            (folder / to).parent.mkdir(exist_ok=True)
            weights = load_file(blocks / f"{name}.safetensors")
            torch.save(weights, folder / f"{to}.pth")
        return load_reference_checkpoint(
            folder,
            n_heads=config["n_heads"],
            perceiver_heads=config["perceiver_heads"],
            structural_heads=config["n_heads"],
        ).double()

    with torch.no_grad():
        return {
            **fmri_outputs(load(), load(spatial="spatial_gradient"), inputs),
            **sc_outputs(load, blocks, inputs["connectome"], config["multi_hops"]),
            **fused_outputs(load(), blocks, inputs),
        }


def fmri_outputs(
    model: BrainSymphony, gradient: BrainSymphony, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    fmri = inputs["timeseries_BRT"].transpose(1, 2)
    out = model(fmri=fmri)
    maps = model.attention_maps("spatial", fmri)
    hidden = ~inputs["context_mask_keep"].transpose(1, 2)  # there True is visible
    context = model.fmri.context
    gradient.fmri.spatial.positions.coordinates = inputs["gradients"]
    return {
        "spatial": out.spatial,
        "spatial_attention_first": maps[:, 0],
        "spatial_attention_last": maps[:, -1],
        "spatial_gradient": gradient(fmri=fmri).spatial,
        "temporal": out.temporal,
        "context": context(FMRIInput(fmri)),
        "context_reconstruction": context.decode(context(FMRIInput(fmri))).transpose(
            1, 2
        ),
        "context_masked_reconstruction": context.decode(
            context(FMRIInput(fmri, hidden))
        ).transpose(1, 2),
        "perceiver_latents": out.latents,
        "perceiver_reconstruction": out.fmri_reconstruction.transpose(1, 2),
        "perceiver_attention_region_mass": model.attention_maps("perceiver", fmri)[
            :, 0
        ].mean(1),
    }


def sc_outputs(load, blocks: Path, sc: Tensor, max_hops: int) -> dict[str, Tensor]:
    outputs = {}
    for kind in EDGE_WEIGHTS:
        own = (blocks / f"structural_{kind}.safetensors").exists()
        model = load(structural=f"structural_{kind}" if own else "structural")
        model.sc.edge_weights, model.sc.max_hops = kind, max_hops
        embedded = model(sc=sc).structural
        outputs[f"structural_{kind}"] = embedded
        outputs[f"structural_{kind}_attention_last"] = model.attention_maps(
            "structural", sc=sc
        )[:, -1]
        if kind == "first_hop":
            outputs["edge_prediction"] = model.sc.edges(embedded)
    return outputs


def fused_outputs(
    model: BrainSymphony, blocks: Path, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    weights = load_file(blocks / "gate.safetensors")
    renamed = {
        name.replace("gate_proj", "project"): value for name, value in weights.items()
    }
    load_weights(model.gate, renamed, source="gate.safetensors")
    out = model(inputs["timeseries_BRT"].transpose(1, 2), inputs["connectome"])
    return {"gate": out.gate, "fused": out.fused}


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_equals_the_official_one(
    name: str, ours: dict[str, Tensor], expected: dict[str, np.ndarray]
) -> None:
    assert ours[name].dtype == torch.float64
    np.testing.assert_allclose(
        ours[name].numpy(), expected[name], rtol=0, atol=TOLERANCE, strict=True
    )


def test_nothing_that_the_official_code_gave_is_left_unchecked(
    expected: dict[str, np.ndarray],
) -> None:
    assert set(expected) - {"spectral_reference"} == {*INPUTS, *OUTPUTS}


def test_official_outputs_are_not_trivial(expected: dict[str, np.ndarray]) -> None:
    for name in OUTPUTS:
        between_scans = np.abs(expected[name][0] - expected[name][1]).max()
        assert between_scans > 1e-4, name


def test_spectral_positions_of_order_reference_are_the_official_ones() -> None:
    with np.load(SMALL / "expected.npz", allow_pickle=False) as arrays:
        sc, official = arrays["connectome"], arrays["spectral_reference"]
    ours = spectral_coordinates(torch.from_numpy(sc), "reference").numpy()
    signs = np.sign((ours * official).sum(1, keepdims=True))  # free in the official
    np.testing.assert_allclose(ours, official * signs, rtol=0, atol=SPECTRAL_TOLERANCE)


def test_released_sizes_reproduce_the_official_outputs(shared: Path) -> None:
    """450 regions, 200 time points, six blocks, with the released Perceiver."""
    folder = shared / "parity" / "checkpoint"
    with np.load(folder / "expected.npz", allow_pickle=False) as arrays:
        given = dict(arrays)
    model = load_reference_checkpoint(folder).double()
    fmri = torch.from_numpy(given["timeseries_BRT"]).double().transpose(1, 2)
    with torch.no_grad():
        out = model(fmri, torch.from_numpy(given["connectome"]).double())
    outputs = {
        "spatial": out.spatial,
        "temporal": out.temporal,
        "perceiver_latents": out.latents,
        "perceiver_reconstruction": out.fmri_reconstruction.transpose(1, 2),
        "structural": out.structural,
    }
    for name, output in outputs.items():
        np.testing.assert_allclose(
            output.numpy(), given[name], rtol=0, atol=TOLERANCE, strict=True
        )
