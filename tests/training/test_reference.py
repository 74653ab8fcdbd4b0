from __future__ import annotations

import contextlib
import os
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsym_sklearn.exceptions import BrainSymphonyWarning, CheckpointError
from bsym_sklearn.model import BrainSymphony
from bsym_sklearn.training.reference import load_reference_checkpoint

State = dict[str, Tensor]
Files = dict[str, State]

SPATIAL, TEMPORAL, CONTEXT, FUSION = (
    f"functional_v1/{name}.pth" for name in ("spatial", "temporal", "context", "fusion")
)
STRUCTURAL = "structural_v1/structural.pth"
FUNCTIONAL = (SPATIAL, TEMPORAL, CONTEXT, FUSION)
HEADS = {"n_heads": 3, "perceiver_heads": 3, "structural_heads": 3}
no_gate = pytest.mark.filterwarnings(
    "ignore:The official weights have no gate:"
    "bsym_sklearn.exceptions.BrainSymphonyWarning"
)


def linear(state: State, name: str, n_out: int, n_in: int, bias: bool = True) -> None:
    state[f"{name}.weight"] = torch.randn(n_out, n_in)
    if bias:
        state[f"{name}.bias"] = torch.randn(n_out)


def norm(state: State, name: str, dim: int) -> None:
    state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(2, dim)


def blocks(state: State, name: str, depth: int, dim: int, mlp_dim: int) -> None:
    for i in range(depth):
        linear(state, f"{name}.{i}.attn.qkv", 3 * dim, dim, bias=False)
        linear(state, f"{name}.{i}.attn.fc_out", dim, dim)
        norm(state, f"{name}.{i}.norm1", dim)
        norm(state, f"{name}.{i}.norm2", dim)
        linear(state, f"{name}.{i}.mlp.0", mlp_dim, dim)
        linear(state, f"{name}.{i}.mlp.2", dim, mlp_dim)


def official_files(
    *,
    n_regions: int = 5,
    window: int = 7,
    dim: int = 9,
    depth: int = 2,
    temporal_depth: int = 1,
    perceiver_depth: int = 2,
    structural_depth: int = 1,
    mlp_dim: int = 11,
    perceiver_mlp_dim: int = 13,
    structural_mlp_dim: int = 17,
    context_dim: int = 4,
    projection_dim: int = 3,
    n_gradients: int | None = None,
    spectral: bool = False,
    table_rows: int = 8,
) -> Files:
    """Return random weights under the official names."""
    torch.manual_seed(0)
    spatial: State = {}
    linear(spatial, "embedding_layer", dim, window)
    blocks(spatial, "layers", depth, dim, mlp_dim)
    norm(spatial, "pos_enc.ln", dim)
    spatial["pos_enc.alpha"] = torch.tensor(0.1)
    if n_gradients is None:
        spatial["pos_enc.pe"] = torch.randn(1, table_rows, dim)
    else:
        linear(spatial, "pos_enc.proj", dim, n_gradients)

    temporal: State = {"pos_enc.pe": torch.randn(1, 20, dim)}
    linear(temporal, "embedding_layer", dim, n_regions)
    blocks(temporal, "layers", temporal_depth, dim, mlp_dim)

    context: State = {
        "mask_token": torch.randn(1),
        "conv1d.weight": torch.randn(context_dim, 1, 5),
        "conv1d.bias": torch.randn(context_dim),
    }
    for i, (n_in, n_out) in enumerate([(context_dim, 32), (32, 8), (8, 1)]):
        linear(context, f"decoder.{2 * i}", n_out, n_in)

    fusion: State = {
        "latents": torch.randn(n_regions, dim),
        "cross_attn.in_proj_weight": torch.randn(3 * dim, dim),
        "cross_attn.in_proj_bias": torch.randn(3 * dim),
    }
    linear(fusion, "input_proj", dim, 3 * projection_dim)
    norm(fusion, "input_ln", dim)
    linear(fusion, "cross_attn.out_proj", dim, dim)
    norm(fusion, "cross_attn_norm", dim)
    blocks(fusion, "latent_transformers", perceiver_depth, dim, perceiver_mlp_dim)
    linear(fusion, "head.0", 2 * dim, dim)
    linear(fusion, "head.2", window, 2 * dim)
    linear(fusion, "roi_proj", projection_dim, dim)
    linear(fusion, "time_proj", projection_dim, dim)
    linear(fusion, "signal_proj", projection_dim, context_dim)

    structural: State = {} if spectral else {"pos_embed": torch.randn(n_regions, dim)}
    linear(structural, "input_proj", dim, n_regions)
    linear(structural, "positional_proj", dim, 30)
    for i in range(structural_depth):
        for name in ("q", "k", "v", "out"):
            linear(structural, f"layers.{i}.{name}_linear", dim, dim)
        norm(structural, f"layers.{i}.layer_norm1", dim)
        norm(structural, f"layers.{i}.layer_norm2", dim)
        linear(structural, f"layers.{i}.ffn.0", structural_mlp_dim, dim)
        linear(structural, f"layers.{i}.ffn.2", dim, structural_mlp_dim)
    for i, (n_in, n_out) in enumerate([(2 * dim, 512), (512, 128), (128, 1)]):
        linear(structural, f"edge_weight_predictor.{2 * i}", n_out, n_in)
    return {
        SPATIAL: spatial,
        TEMPORAL: temporal,
        CONTEXT: context,
        FUSION: fusion,
        STRUCTURAL: structural,
    }


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / name)
    return folder


@pytest.mark.parametrize(
    ("sizes", "heads"),
    [
        ({}, HEADS),
        (
            {"n_regions": 1, "window": 1, "dim": 3, "depth": 1},
            {"n_heads": 1, "perceiver_heads": 3, "structural_heads": 1},
        ),
        ({"depth": 1, "temporal_depth": 3, "structural_depth": 2}, HEADS),
        ({"n_regions": 8, "table_rows": 8, "perceiver_depth": 1}, HEADS),
        ({"n_gradients": 6}, HEADS),
        ({"spectral": True}, HEADS),
        ({"dim": 128, "projection_dim": 64, "perceiver_depth": 1}, {}),  # released
        ({"dim": 128, "projection_dim": 128, "context_dim": 64}, {}),  # as coded
    ],
)
@pytest.mark.filterwarnings("ignore::bsym_sklearn.exceptions.BrainSymphonyWarning")
def test_every_size_is_read_off_the_weights(
    sizes: dict[str, Any], heads: dict[str, int], tmp_path: Path
) -> None:
    files = official_files(**sizes)
    model = load_reference_checkpoint(write(tmp_path, files), **heads)

    n_regions, window = sizes.get("n_regions", 5), sizes.get("window", 7)
    dim, projection = sizes.get("dim", 9), sizes.get("projection_dim", 3)
    fmri, perceiver = model.fmri, model.fmri.perceiver
    assert (model.n_regions, model.window, model.dim) == (n_regions, window, dim)
    assert len(fmri.spatial.blocks) == sizes.get("depth", 2)
    assert len(fmri.temporal.blocks) == sizes.get("temporal_depth", 1)
    assert len(perceiver.blocks) == sizes.get("perceiver_depth", 2)
    assert len(model.sc.blocks) == sizes.get("structural_depth", 1)
    assert perceiver.join.in_features == 3 * projection
    assert fmri.context.convolution.out_channels == sizes.get("context_dim", 4)
    hidden = [
        stream.blocks[0].feed_forward.expand.out_features
        for stream in (fmri.spatial, fmri.temporal, perceiver, model.sc)
    ]
    assert hidden == [11, 11, 13, 17]
    if "n_gradients" in sizes:
        assert fmri.spatial.positions.project.in_features == sizes["n_gradients"]

    out = model(torch.randn(2, window, n_regions), torch.ones(2, n_regions, n_regions))
    assert out.fused.shape == (2, n_regions, dim)
    assert out.fmri_reconstruction.shape == (2, window, n_regions)
    assert out.fused.isfinite().all()


@no_gate
def test_model_is_ready_for_use_and_all_options_are_reference(tmp_path: Path) -> None:
    files = official_files()
    files[SPATIAL] = {name: x.half() for name, x in files[SPATIAL].items()}
    files[FUSION] = {name: x.double() for name, x in files[FUSION].items()}
    model = load_reference_checkpoint(write(tmp_path, files), **HEADS)
    assert not model.training
    assert {x.dtype for x in model.state_dict().values()} == {torch.float32}
    assert model.fmri.spatial.tokens == "series"
    assert model.fmri.perceiver.residual == "reference"
    assert isinstance(model.fmri.norms["latents"], nn.Identity)
    assert model.sc.edge_weights == "first_hop"
    assert model.sc.edges.symmetry == "reference"
    attention = model.sc.blocks[0].attention
    assert (attention.signed, attention.absent_edges) == ("reference", "reference")


@no_gate
def test_weights_arrive_where_they_belong(tmp_path: Path) -> None:
    files = official_files()
    model = load_reference_checkpoint(write(tmp_path, files), **HEADS)
    perceiver, joined = model.fmri.perceiver, files[FUSION]["cross_attn.in_proj_weight"]
    torch.testing.assert_close(perceiver.query.weight, joined[:9])
    torch.testing.assert_close(perceiver.key_value.weight, joined[9:])
    table = files[SPATIAL]["pos_enc.pe"]
    torch.testing.assert_close(model.fmri.spatial.positions.table, table[0, :5])
    official = sum(x.numel() for state in files.values() for x in state.values())
    unused = (
        3 * 9 + 2 * 9 + 1 + 20 * 9 + 30 * 9 + 9
    )  # table, norm, alpha, sinusoids, spectral
    ours_alone = 9 + 9 + 1 + 9 * 18 + 9  # three tokens and the gate
    ours = sum(x.numel() for x in model.state_dict().values())
    assert ours == official - unused + ours_alone


@no_gate
def test_what_was_never_published_starts_as_documented(tmp_path: Path) -> None:
    model = load_reference_checkpoint(write(tmp_path, official_files()), **HEADS)
    for token in (
        model.fmri.spatial.mask_token,
        model.fmri.temporal.mask_token,
        model.sc.mask_token,
    ):
        assert (token == 0).all()
    assert model.fmri.context.mask_token != 0  # this one is published
    again = load_reference_checkpoint(tmp_path, **HEADS)
    assert torch.equal(model.gate.project.weight, again.gate.project.weight)
    assert model.gate.project.weight.std() > 0


def test_untrained_gate_is_warned_of_where_there_is_one(tmp_path: Path) -> None:
    files = official_files()
    with pytest.warns(BrainSymphonyWarning, match="`gate` and `fused` are untrained"):
        load_reference_checkpoint(write(tmp_path / "both", files), **HEADS)
    functional = {name: files[name] for name in FUNCTIONAL}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_reference_checkpoint(write(tmp_path / "fmri", functional), **HEADS)


def test_gradients_that_are_still_to_be_set_are_warned_of(tmp_path: Path) -> None:
    files = official_files(n_gradients=4)
    del files[STRUCTURAL]
    with pytest.warns(BrainSymphonyWarning, match="until you call `set_coordinates`"):
        model = load_reference_checkpoint(write(tmp_path, files), **HEADS)
    series = torch.randn(1, 7, 5)
    before = model(series).spatial
    model.set_coordinates(torch.randn(5, 4))
    assert not torch.allclose(before, model(series).spatial)


def test_folder_with_one_branch_gives_a_model_of_that_modality(tmp_path: Path) -> None:
    files = official_files()
    structural = write(tmp_path / "sc", {STRUCTURAL: files.pop(STRUCTURAL)})
    fmri = load_reference_checkpoint(write(tmp_path / "fmri", files), **HEADS)
    sc = load_reference_checkpoint(structural, **HEADS)
    assert (fmri.modalities, sc.modalities) == (("fmri",), ("sc",))
    assert (fmri.sc, fmri.gate, sc.fmri, sc.gate) == (None, None, None, None)
    out = fmri(torch.randn(1, 7, 5))
    assert out.fused is out.latents
    assert sc(sc=torch.ones(1, 5, 5)).fused.shape == (1, 5, 9)


@no_gate
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"epoch": 3, "model_state_dict": state},
        lambda state: {f"module.{name}": x for name, x in state.items()},
    ],
)
def test_common_wrappers_are_seen_through(
    wrap: Callable[[State], dict[str, Any]], tmp_path: Path
) -> None:
    files = official_files()
    plain = load_reference_checkpoint(write(tmp_path / "plain", files), **HEADS)
    wrapped = {name: wrap(state) for name, state in files.items()}
    model = load_reference_checkpoint(write(tmp_path / "wrapped", wrapped), **HEADS)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize("prefix", ["encoder.", "module.encoder."])
def test_structural_file_of_the_whole_training_module_is_read(
    prefix: str, tmp_path: Path
) -> None:
    state = official_files()[STRUCTURAL]
    plain = load_reference_checkpoint(
        write(tmp_path / "plain", {STRUCTURAL: state}), **HEADS
    )
    prefixed = {STRUCTURAL: {f"{prefix}{name}": x for name, x in state.items()}}
    model = load_reference_checkpoint(write(tmp_path / "prefixed", prefixed), **HEADS)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_heads_that_do_not_divide_are_a_value_error(tmp_path: Path) -> None:
    write(tmp_path, official_files())
    for heads in ({"n_heads": 4}, {"perceiver_heads": 2}, {"structural_heads": 0}):
        with pytest.raises(ValueError, match="multiple of the number of heads"):
            load_reference_checkpoint(tmp_path, **{**HEADS, **heads})


# What is wrong with a folder, and how the error says so.


def test_folder_without_anything_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="with neither"):
            load_reference_checkpoint(folder)


def test_incomplete_functional_branch_names_the_missing_files(tmp_path: Path) -> None:
    files = official_files()
    del files[SPATIAL], files[TEMPORAL]
    with pytest.raises(CheckpointError, match=f"without {SPATIAL}, {TEMPORAL}"):
        load_reference_checkpoint(write(tmp_path, files))


def test_all_wrong_weights_are_listed_at_once(tmp_path: Path) -> None:
    files = official_files()
    del files[SPATIAL]["layers.1.norm1.bias"]
    del files[STRUCTURAL]["edge_weight_predictor.4.weight"]
    files[TEMPORAL]["surprise"] = torch.zeros(1)
    files[FUSION]["head.0.bias"] = torch.zeros(3)
    files[FUSION]["cross_attn.in_proj_bias"] = torch.tensor(1.0)
    with pytest.raises(CheckpointError) as caught:
        load_reference_checkpoint(write(tmp_path, files), **HEADS)
    message = str(caught.value)
    assert "Missing: fmri.spatial.blocks.1.attention_norm.bias, sc.edges.rest.3" in (
        message
    )
    assert f"Unexpected: {TEMPORAL}: surprise." in message
    assert "fmri.perceiver.head.0.bias (3,) instead of (18,)" in message
    assert "fmri.perceiver.key_value.bias (0,) instead of (18,)" in message


@pytest.mark.parametrize(
    ("file", "name", "reported"),
    [
        (SPATIAL, "pos_enc.unknown", f"{SPATIAL}: pos_enc.unknown"),
        (SPATIAL, "norm1.weight", "fmri.spatial.attention_norm.weight"),
        (SPATIAL, "layers.x.norm1.weight", f"{SPATIAL}: layers.x.norm1.weight"),
        (SPATIAL, "layers.00.norm1.weight", "fmri.spatial.blocks.00.attention_norm"),
        (FUSION, "cross_attn.query.weight", f"{FUSION}: cross_attn.query.weight"),
        (STRUCTURAL, "layers.0.pos_embed", "sc.blocks.0.table"),
        (CONTEXT, "mask_token.weight", "fmri.context.mask_token.weight"),
    ],
)
def test_no_unknown_name_is_taken_for_a_known_one(
    file: str, name: str, reported: str, tmp_path: Path
) -> None:
    files = official_files()
    files[file][name] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=rf"Unexpected: .*{re.escape(reported)}"):
        load_reference_checkpoint(write(tmp_path, files), **HEADS)


def test_position_table_shorter_than_the_regions_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, official_files(table_rows=4))
    with pytest.raises(CheckpointError, match=r"table \(4, 9\) instead of \(5, 9\)"):
        load_reference_checkpoint(tmp_path, **HEADS)


def test_gap_in_the_blocks_is_an_error(tmp_path: Path) -> None:
    files = official_files()
    files[SPATIAL] = {
        name.replace("layers.1.", "layers.7."): x for name, x in files[SPATIAL].items()
    }
    with pytest.raises(CheckpointError, match=r"Missing: fmri\.spatial\.blocks\.1\."):
        load_reference_checkpoint(write(tmp_path, files), **HEADS)


@pytest.mark.parametrize(
    ("sizes", "file", "message"),
    [
        ({"n_regions": 6}, STRUCTURAL, f"n_regions is 5 in {TEMPORAL}"),
        ({"n_regions": 6}, FUSION, f"6 in {FUSION}"),
        ({"window": 8}, SPATIAL, f"window is 8 in {SPATIAL}, 7 in {FUSION}"),
        ({"dim": 6}, TEMPORAL, f"dim is 9 in {SPATIAL}, 6 in {TEMPORAL}"),
        ({"mlp_dim": 12}, TEMPORAL, f"mlp_dim is 11 in {SPATIAL}, 12 in {TEMPORAL}"),
        ({"context_dim": 5}, CONTEXT, f"context_dim is 5 in {CONTEXT}, 4 in {FUSION}"),
    ],
)
def test_files_of_different_models_are_an_error(
    sizes: dict[str, int], file: str, message: str, tmp_path: Path
) -> None:
    files = {**official_files(), file: official_files(**sizes)[file]}
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_reference_checkpoint(write(tmp_path, files), **HEADS)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "nowhere"),
        (torch.zeros(9), r"of shape \(9,\)"),
        (torch.zeros(9, 0), r"of shape \(9, 0\)"),
    ],
)
def test_weight_that_should_tell_a_size_but_does_not_is_an_error(
    value: Tensor | None, got: str, tmp_path: Path
) -> None:
    files = official_files()
    if value is None:
        del files[SPATIAL]["embedding_layer.weight"]
    else:
        files[SPATIAL]["embedding_layer.weight"] = value
    with pytest.raises(
        CheckpointError,
        match=f"'embedding_layer.weight' in {SPATIAL} to tell .* Got it {got}",
    ):
        load_reference_checkpoint(write(tmp_path, files), **HEADS)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(2),
        [torch.zeros(2)],
        {"latents": 3.0},
        {3: torch.zeros(2)},
        {"latents": torch.zeros(2, dtype=torch.int64)},
        {"latents": torch.zeros(2, 2).to_sparse()},
        {"latents": torch.zeros(2, device="meta")},
        {"state_dict": [1, 2]},
    ],
)
def test_file_without_named_tensors_is_an_error(content: Any, tmp_path: Path) -> None:
    write(tmp_path, {**official_files(), FUSION: content})
    with pytest.raises(CheckpointError, match=r"fusion\.pth', which holds something"):
        load_reference_checkpoint(tmp_path, **HEADS)


class Attack:
    """Runs a command when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_file_that_would_run_code_does_not(legacy: bool, tmp_path: Path) -> None:
    write(tmp_path, official_files())
    target = tmp_path / "attacked"
    if legacy:
        (tmp_path / CONTEXT).write_bytes(pickle.dumps({"mask_token": Attack(target)}))
    else:
        torch.save({"mask_token": Attack(target)}, tmp_path / CONTEXT)
    with pytest.raises(CheckpointError, match=r"context\.pth', which is damaged, or"):
        load_reference_checkpoint(tmp_path, **HEADS)
    assert not target.exists()


def test_lazy_layer_that_never_saw_data_is_named(tmp_path: Path) -> None:
    write(tmp_path, official_files())
    lazy = nn.ModuleDict({"embedding_layer": nn.LazyLinear(9)})
    torch.save(lazy.state_dict(), tmp_path / TEMPORAL)
    with pytest.raises(CheckpointError, match=r"temporal\.pth', which has no shapes"):
        load_reference_checkpoint(tmp_path, **HEADS)


@pytest.mark.parametrize("content", [b"", b"junk" * 50, b"PK\x03\x04" + bytes(40)])
def test_file_that_is_no_torch_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, official_files())
    (tmp_path / STRUCTURAL).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"structural\.pth', which is damaged"):
        load_reference_checkpoint(tmp_path, **HEADS)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), zipped=st.booleans())
def test_damage_anywhere_is_a_checkpoint_error_or_harmless(
    data: st.DataObject, zipped: bool, tmp_path: Path
) -> None:
    state = official_files(depth=1, perceiver_depth=1)[CONTEXT]
    path = write(tmp_path, official_files()) / CONTEXT
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=20)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):  # anything else fails the test
        model = load_reference_checkpoint(tmp_path, **HEADS)
        assert isinstance(model, BrainSymphony)
