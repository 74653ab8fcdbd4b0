from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bsym_sklearn.exceptions import BrainSymphonyWarning, CheckpointError
from bsym_sklearn.model.brain_jepa import BrainJEPA
from bsym_sklearn.model.brainlm import BrainLM
from bsym_sklearn.training.rivals import (
    BRAINLM_DEAD,
    load_brain_jepa_checkpoint,
    load_brainlm_checkpoint,
)

State = dict[str, Tensor]

FIXTURES = Path(__file__).parents[1] / "model" / "fixtures" / "rivals"
PARTS = ("encoder", "predictor", "target_encoder")
TABLE = "pos_embed_proj.emb_h"
no_warning = pytest.mark.filterwarnings(
    "ignore:The published weights do not hold:"
    "bsym_sklearn.exceptions.BrainSymphonyWarning"
)


@pytest.fixture
def brainlm() -> State:
    """Return weights under the published names."""
    return load_file(FIXTURES / "brainlm.safetensors")


@pytest.fixture
def jepa() -> dict[str, State]:
    """Return the parts of a published file, wrapped as its training left them."""
    parts: dict[str, State] = {part: {} for part in PARTS}
    for name, value in load_file(FIXTURES / "brain_jepa.safetensors").items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    return parts


def load_brainlm(folder: Path, state: Any) -> BrainLM:
    torch.save(state, folder / "pytorch_model.bin")
    return load_brainlm_checkpoint(folder / "pytorch_model.bin", n_regions=7, window=40)


def load_jepa(folder: Path, parts: Any) -> BrainJEPA:
    torch.save(parts, folder / "jepa.pth.tar")
    return load_brain_jepa_checkpoint(folder / "jepa.pth.tar", n_heads=2)


def test_brainlm_sizes_come_from_the_weights(tmp_path: Path, brainlm: State) -> None:
    with pytest.warns(BrainSymphonyWarning, match="until you call `set_coordinates`"):
        model = load_brainlm(tmp_path, brainlm)
    expected = {"dim": 12, "depth": 2, "n_heads": 3, "mlp_dim": 20, "patch_size": 8}
    expected |= {"decoder_depth": 1, "convolution_kernel": 5}
    assert {name: model.config[name] for name in expected} == expected
    assert not model.training
    weight = "vit.embeddings.signal_embedding_projection.weight"
    assert torch.equal(model.encoder.embed.weight, brainlm[weight].float())
    assert model.encoder.embed.weight.dtype == torch.float32


def test_jepa_sizes_come_from_the_weights(
    tmp_path: Path, jepa: dict[str, State]
) -> None:
    with pytest.warns(BrainSymphonyWarning, match="until you call `set_coordinates`"):
        model = load_jepa(tmp_path, jepa)
    expected = {"n_regions": 20, "window": 40, "patch_size": 4, "dim": 16, "depth": 2}
    expected |= {"predictor_dim": 8, "predictor_depth": 1, "n_gradients": 3}
    assert {name: model.config[name] for name in expected} == expected
    assert not model.training


@no_warning
def test_jepa_encoder_is_the_published_target_encoder(
    tmp_path: Path, jepa: dict[str, State]
) -> None:
    model = load_jepa(tmp_path, jepa)
    target = jepa["target_encoder"]["module.norm.weight"].float()
    assert not torch.equal(target, jepa["encoder"]["module.norm.weight"].float())
    assert torch.equal(model.encoder.norm.weight, target)
    assert torch.equal(model.target_encoder.norm.weight, target)
    assert not any(p.requires_grad for p in model.target_encoder.parameters())


@no_warning
def test_file_formats_give_the_same_model(
    tmp_path: Path, brainlm: State, jepa: dict[str, State]
) -> None:
    models = [
        (
            load_brainlm(tmp_path, {f"module.{k}": v for k, v in brainlm.items()}),
            load_brainlm_checkpoint(
                FIXTURES / "brainlm.safetensors", n_regions=7, window=40
            ),
        ),
        (
            load_jepa(tmp_path, {**jepa, "opt": {"lr": 0.1}, "epoch": 299}),
            load_brain_jepa_checkpoint(FIXTURES / "brain_jepa.safetensors", n_heads=2),
        ),
    ]
    for one, other in models:
        assert one.config == other.config
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


@no_warning
def test_brainlm_without_convolution_needs_to_be_told_its_heads(
    tmp_path: Path, brainlm: State
) -> None:
    plain = {name: v for name, v in brainlm.items() if ".conv." not in name}
    path = tmp_path / "plain.safetensors"
    save_file(plain, path)
    model = load_brainlm_checkpoint(path, n_regions=7, window=40, n_heads=2)
    assert model.config["convolution_kernel"] is None
    assert model.config["n_heads"] == 2


@no_warning
def test_only_dead_tensors_may_be_missing(tmp_path: Path, brainlm: State) -> None:
    assert set(brainlm) >= BRAINLM_DEAD
    alive = {name: v for name, v in brainlm.items() if name not in BRAINLM_DEAD}
    load_brainlm(tmp_path, alive)
    for name in alive:
        if ".conv." in name and ".0." in name and "vit" in name:
            continue  # tells whether there is a convolution
        with pytest.raises(CheckpointError):
            load_brainlm(tmp_path, {k: v for k, v in alive.items() if k != name})


def test_no_jepa_tensor_may_be_missing(tmp_path: Path, jepa: dict[str, State]) -> None:
    for part in PARTS:
        for name in jepa[part]:
            fewer = {k: v for k, v in jepa[part].items() if k != name}
            with pytest.raises(CheckpointError):
                load_jepa(tmp_path, {**jepa, part: fewer})


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("decoder.new.weight", (1,), "Unexpected: published: decoder.new.weight"),
        (
            "vit.encoder.layer.0.attention.new.weight",
            (1,),
            "Unexpected: published: vit.encoder.layer.0.attention.new.weight",
        ),
        ("vit.layernorm.weight", (5,), r"shape: encoder.stack.norm.weight \(5,\)"),
    ],
)
def test_other_brainlm_tensors_are_named(
    tmp_path: Path, brainlm: State, name: str, shape: tuple[int, ...], message: str
) -> None:
    brainlm[name] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=message):
        load_brainlm(tmp_path, brainlm)


def test_missing_brainlm_tensors_are_named(tmp_path: Path, brainlm: State) -> None:
    del brainlm["vit.encoder.layer.1.attention.self.key.bias"]
    with pytest.raises(
        CheckpointError,
        match=r"Missing: encoder.stack.blocks.1.attention.query_key_value.bias",
    ):
        load_brainlm(tmp_path, brainlm)


def test_other_jepa_tensors_are_named(tmp_path: Path, jepa: dict[str, State]) -> None:
    jepa["encoder"]["module.pos_embed_proj.emb_w"] = torch.zeros(2)
    with pytest.raises(
        CheckpointError, match=r"Unexpected: encoder: pos_embed_proj.emb_w"
    ):
        load_jepa(tmp_path, jepa)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_other_fixed_positions_are_refused(
    tmp_path: Path, jepa: dict[str, State], value: float
) -> None:
    for part in ("encoder", "target_encoder"):
        jepa[part][f"module.{TABLE}"].fill_(value)
    with pytest.raises(CheckpointError, match="published table of time positions"):
        load_jepa(tmp_path, jepa)


def test_file_without_a_part_is_refused(tmp_path: Path, jepa: dict[str, State]) -> None:
    del jepa["predictor"]
    with pytest.raises(CheckpointError, match=r"jepa.pth.tar', which has no predictor"):
        load_jepa(tmp_path, jepa)


def test_image_model_of_the_same_name_is_refused(tmp_path: Path) -> None:
    name = "vit.embeddings.patch_embeddings.projection.weight"
    with pytest.raises(CheckpointError, match="signal_embedding_projection"):
        load_brainlm(tmp_path, {name: torch.zeros(8, 3, 4, 4)})


def test_window_shorter_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 time points"):
        load_brainlm_checkpoint(FIXTURES / "brainlm.safetensors", n_regions=7, window=7)


class Opener:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("opened", "w"))


@pytest.mark.parametrize("load", [load_brainlm_checkpoint, load_brain_jepa_checkpoint])
def test_files_that_could_run_code_or_are_damaged_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = {
        "code.bin": pickle.dumps({"encoder": Opener()}, protocol=2),
        "cut.bin": (FIXTURES / "brainlm.safetensors").read_bytes()[:100],
        "cut.safetensors": (FIXTURES / "brainlm.safetensors").read_bytes()[:100],
        "empty.bin": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"'.*{name}', which is damaged"):
            load(tmp_path / name)
    assert not (tmp_path / "opened").exists()
    with pytest.raises(CheckpointError, match="which is not a file"):
        load(tmp_path)


@pytest.mark.parametrize("load", [load_brainlm, load_jepa])
@pytest.mark.parametrize("content", [[1], {1: torch.zeros(1)}, {"encoder": 1}])
def test_files_of_something_else_are_refused(
    tmp_path: Path, load: Any, content: Any
) -> None:
    with pytest.raises(CheckpointError, match="by name, in floating point"):
        load(tmp_path, content)
