"""Our rivals with the original weights give the original outputs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bsym_sklearn.model.block_masking import (
    TokenList,
    list_tokens,
    longest_lists,
    sample_blocks,
)
from bsym_sklearn.model.brain_jepa import BrainJEPA
from bsym_sklearn.model.brainlm import BrainLM
from bsym_sklearn.training.rivals import (
    load_brain_jepa_checkpoint,
    load_brainlm_checkpoint,
)

TOLERANCE = 1e-9  # absolute, in float64
# How much a mean over 960 sampled scans varies.
SAMPLING_TOLERANCE = 0.03
FIXTURES = Path(__file__).parent / "fixtures" / "rivals"
SCRIPT = Path(__file__).parent / "make_rival_fixtures.py"

pytestmark = pytest.mark.filterwarnings(
    "ignore:The published weights do not hold:"
    "bsym_sklearn.exceptions.BrainSymphonyWarning"
)


def original_folder(
    kind: str, option: str, needs: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the frozen files, or new ones with other weights from a copy."""
    if kind == "frozen":
        return FIXTURES
    copy = os.environ.get(kind)
    if copy is None:
        pytest.skip(f"needs {kind}, the folder of a copy of the original code")
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"the original code needs {needs}, which is not installed")
    folder = tmp_path_factory.mktemp("original")
    subprocess.run(
        [sys.executable, SCRIPT, option, copy, "--to", folder, "--seed", "1"],
        check=True,
    )
    return folder


@pytest.fixture(scope="module", params=["frozen", "BSYM_REFERENCE_BRAINLM"])
def brainlm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BrainLM, dict[str, Tensor]]:
    folder = original_folder(
        request.param, "--brainlm", "transformers", tmp_path_factory
    )
    config, expected = read(folder, "brainlm")
    model = load_brainlm_checkpoint(
        folder / "brainlm.safetensors",
        n_regions=config["n_regions"],
        window=config["window"],
    ).double()
    model.mask_ratio = config["mask_ratio"]
    model.set_coordinates(expected["coordinates"])
    return model, expected


@pytest.fixture(scope="module", params=["frozen", "BSYM_REFERENCE_BRAIN_JEPA"])
def brain_jepa(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BrainJEPA, dict[str, Tensor]]:
    folder = original_folder(request.param, "--brain-jepa", "torch", tmp_path_factory)
    config, expected = read(folder, "brain_jepa")
    path = folder / "brain_jepa.safetensors"
    model = load_brain_jepa_checkpoint(path, n_heads=config["n_heads"]).double()
    model.set_coordinates(expected["coordinates"])
    # Fixed sines: ours are computed in float32, theirs in float64.
    table = exact_table(config["window"] // config["patch_size"], config["dim"] // 2)
    narrow = exact_table(len(table), config["predictor_dim"] // 2)
    model.encoder.places.time.copy_(table)
    model.target_encoder.places.time.copy_(table)
    model.predictor.places.time.copy_(narrow)
    expected["online"] = online_encoder(
        path, tmp_path_factory.mktemp("swapped"), config["n_heads"]
    )
    return model, expected


def read(folder: Path, name: str) -> tuple[dict, dict[str, Tensor]]:
    config = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        return config, {key: torch.from_numpy(arrays[key]) for key in arrays}


def online_encoder(path: Path, folder: Path, n_heads: int) -> dict[str, Tensor]:
    """Return the encoder of the file, of which the loader adopts the target."""
    parts = {"encoder": "target_encoder", "target_encoder": "encoder"}
    swapped = {}
    for name, value in load_file(path).items():
        part, _, rest = name.partition(".")
        swapped[f"{parts.get(part, part)}.{rest}"] = value
    save_file(swapped, folder / "swapped.safetensors")
    model = load_brain_jepa_checkpoint(folder / "swapped.safetensors", n_heads=n_heads)
    return model.encoder.state_dict()


def exact_table(n_patches: int, dim: int) -> Tensor:
    frequency = 10_000.0 ** (-torch.arange(dim // 2).double() / (dim / 2))
    angle = torch.arange(n_patches).double().unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).float().double()


def assert_equal(ours: Tensor, expected: Tensor) -> None:
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, expected, rtol=0, atol=TOLERANCE)


def test_brainlm_predicts_hidden_patches_as_the_original(brainlm) -> None:
    model, expected = brainlm
    out = model.predict_hidden(expected["fmri"], expected["noise"])
    assert_equal(out.values, expected["prediction"])
    assert torch.equal(out.hidden[..., 0], expected["mask"].bool())
    assert_equal(out.error(), expected["loss"])
    out.error().backward()
    assert_equal(model.encoder.embed.weight.grad, expected["embed_gradient"])


def test_brainlm_embeds_as_the_original_does_in_the_order_of_tokens(brainlm) -> None:
    model, expected = brainlm
    with torch.no_grad():
        out = model.embeddings(expected["fmri"])
    assert_equal(out.cls, expected["cls"])
    assert_equal(out.regions, expected["regions"])


def test_brain_jepa_embeds_as_the_original_target_encoder(brain_jepa) -> None:
    model, expected = brain_jepa
    with torch.no_grad():
        assert_equal(model(expected["fmri"]), expected["regions"])


def test_brain_jepa_loss_and_gradient_are_the_original_ones(brain_jepa) -> None:
    model, expected = brain_jepa
    model.encoder.load_state_dict(expected["online"])
    lists = (
        TokenList(expected[name], torch.zeros_like(expected[name], dtype=torch.bool))
        for name in ("context", "targets")
    )
    loss = model.prediction_loss(expected["fmri"], *lists)
    assert_equal(loss, expected["loss"])
    loss.backward()
    assert_equal(model.encoder.embed.weight.grad, expected["embed_gradient"])
    model.adopt_target()


def test_published_masking_has_the_statistics_of_the_original_sampler(
    brain_jepa,
) -> None:
    _, expected = brain_jepa
    generator = torch.Generator().manual_seed(0)
    seen, asked, sizes = torch.zeros(4500), torch.zeros(4500), []
    for _ in range(60):
        context, targets = sample_blocks(16, 450, 10, generator, masking="published")
        longest = longest_lists(450, 10)
        lists = (
            list_tokens(context, longest=longest[0], masking="published"),
            list_tokens(*targets, longest=longest[1], masking="published"),
        )
        for total, chosen in zip((seen, asked), lists, strict=True):
            assert not chosen.absent.any()
            tokens = chosen.tokens.flatten()
            total.index_add_(0, tokens, torch.ones(len(tokens)))
        sizes.append([chosen.tokens.shape[1] for chosen in lists])
    ours = {}
    for name, total in (("context", seen), ("targets", asked)):
        share = (total / 960).view(450, 10)
        ours[f"{name}_by_patch"] = share.mean(0)
        ours[f"{name}_by_region"] = share.mean(1).view(10, 45).mean(1)
    for name, share in ours.items():
        torch.testing.assert_close(
            share, expected[name], rtol=0, atol=SAMPLING_TOLERANCE
        )
    assert expected["context_by_patch"][-1] == ours["context_by_patch"][-1] == 0
    torch.testing.assert_close(
        torch.tensor(sizes).float().mean(0), expected["sampled_sizes"], rtol=0.1, atol=0
    )
