from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.files import temporary_name
from bsym_sklearn.training import checkpoints
from bsym_sklearn.training.checkpoints import (
    load_bundle,
    load_state,
    load_weights,
    save_bundle,
    save_state,
)

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
CONFIG = {"dim": 8, "labels": ["a", "b"], "nested": {"t_r": 0.72, "none": None}}


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name])
        assert value.dtype == right[name].dtype


# Bundles


def test_bundle_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "with its parents"
    save_bundle(folder, tensors=TENSORS, config=CONFIG)
    tensors, config = load_bundle(folder)
    assert_same(tensors, TENSORS)
    assert config == CONFIG
    assert names(folder) == {"model.safetensors", "config.json"}
    assert names(folder.parent) == {folder.name}


def test_every_kind_of_tensor_comes_back(tmp_path: Path) -> None:
    tied = torch.randn(3, 4)
    tensors = {
        "tied": tied,
        "again": tied,
        "view": tied[:, ::2],
        "transposed": tied.T,
        "expanded": torch.ones(1).expand(5),
        "parameter": nn.Parameter(torch.randn(2)),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "mask": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    save_bundle(tmp_path, tensors=tensors, config={})
    loaded, _ = load_bundle(tmp_path)
    assert_same(loaded, tensors)
    loaded["tied"].zero_()  # nothing is shared, neither here nor with the file
    assert loaded["again"].any()
    assert load_bundle(tmp_path)[0]["tied"].any()


def test_config_file_is_plain_sorted_json(tmp_path: Path) -> None:
    save_bundle(tmp_path, tensors={}, config={"b": 1, "a": 2})
    text = (tmp_path / "config.json").read_text()
    assert list(json.loads(text)) == ["a", "b", "format", "format_version", "sha256"]
    assert json.loads(text)["format"] == "bsym_sklearn"


def test_bundle_replaces_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    save_bundle(folder, tensors=TENSORS, config={"old": True})
    save_bundle(folder, tensors={"new": torch.ones(1)}, config={})
    tensors, config = load_bundle(folder)
    assert (list(tensors), config) == (["new"], {})
    assert names(tmp_path) == {"bundle"}


def test_link_to_a_bundle_stays_a_link(tmp_path: Path) -> None:
    save_bundle(tmp_path / "real", tensors={}, config={"old": True})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save_bundle(tmp_path / "link", tensors={}, config={"old": False})
    assert (tmp_path / "link").is_symlink()
    assert load_bundle(tmp_path / "real")[1] == {"old": False}


@pytest.mark.parametrize(
    "content",
    [
        {"notes.txt": "mine"},
        {"config.json": "{}", "model.safetensors": "of another program"},
        {"model.safetensors": "alone"},
    ],
)
def test_folder_that_is_no_bundle_is_not_overwritten(
    content: dict[str, str], tmp_path: Path
) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"holds something else|another format"):
        save_bundle(tmp_path, tensors=TENSORS, config=CONFIG)
    assert {name: (tmp_path / name).read_text() for name in content} == content
    assert names(tmp_path) == set(content)


def test_bundle_with_a_file_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    save_bundle(tmp_path, tensors=TENSORS, config=CONFIG)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(CheckpointError, match="holds something else"):
        save_bundle(tmp_path, tensors={}, config={})
    assert load_bundle(tmp_path)[1] == CONFIG


def test_card_is_for_people_and_replaced_with_the_rest(tmp_path: Path) -> None:
    for card in ("one", "two"):
        save_bundle(tmp_path, tensors=TENSORS, config=CONFIG, card=card)
        assert (tmp_path / "README.md").read_text() == card
    (tmp_path / "README.md").write_bytes(b"\xff")
    assert load_bundle(tmp_path)[1] == CONFIG
    (tmp_path / "README.md").unlink()
    save_bundle(tmp_path, tensors={}, config={})
    assert names(tmp_path) == {"config.json", "model.safetensors"}


def test_card_that_somebody_has_edited_is_not_overwritten(tmp_path: Path) -> None:
    save_bundle(tmp_path, tensors=TENSORS, config=CONFIG, card="ours")
    (tmp_path / "README.md").write_text("ours, and a figure")
    with pytest.raises(CheckpointError, match="holds something else"):
        save_bundle(tmp_path, tensors={}, config={}, card="new")
    assert (tmp_path / "README.md").read_text() == "ours, and a figure"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_weights_and_settings_that_were_swapped_or_edited_are_refused(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save_bundle(first, tensors=TENSORS, config=CONFIG)
    save_bundle(second, tensors={"w": torch.ones(1)}, config=CONFIG)
    weights = (second / "model.safetensors").read_bytes()
    (first / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"SHA-256 is not that in config\.json"):
        load_bundle(first)
    edit(second / "config.json", '"dim": 8', '"dim": 9')
    with pytest.raises(CheckpointError, match="has changed since it was written"):
        load_bundle(second)


def test_settings_may_be_laid_out_anew(tmp_path: Path) -> None:
    save_bundle(tmp_path, tensors=TENSORS, config=CONFIG)
    content = json.loads((tmp_path / "config.json").read_text())
    reordered = dict(reversed(content.items()))
    (tmp_path / "config.json").write_text(json.dumps(reordered))
    assert load_bundle(tmp_path)[1] == CONFIG


def test_first_format_has_no_hashes_and_the_second_cannot_pass_for_it(
    tmp_path: Path,
) -> None:
    save_bundle(tmp_path, tensors=TENSORS, config=CONFIG)
    edit(tmp_path / "config.json", '"format_version": 2', '"format_version": 1')
    with pytest.raises(CheckpointError, match="format 1 has no hashes"):
        load_bundle(tmp_path)
    old = {"format": "bsym_sklearn", "format_version": 1, **CONFIG}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert load_bundle(tmp_path)[1] == CONFIG


def test_file_in_place_of_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(CheckpointError, match="holds something else"):
        save_bundle(path, tensors=TENSORS, config=CONFIG)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"loss": float("nan")}, ValueError),
        ({"loss": float("inf")}, ValueError),
        ({"tensor": torch.ones(1)}, TypeError),
        ({"format": "other"}, ValueError),
    ],
)
def test_config_that_json_cannot_hold_leaves_the_old_bundle(
    config: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    save_bundle(folder, tensors=TENSORS, config=CONFIG)
    with pytest.raises(error):
        save_bundle(folder, tensors={}, config=config)
    assert load_bundle(folder)[1] == CONFIG
    assert names(tmp_path) == {"bundle"}


# Three files, their folder, two renames, the parent folder.
@pytest.mark.parametrize("calls_before", range(7))
def test_failure_at_any_write_leaves_the_old_bundle(
    calls_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    save_bundle(folder, tensors=TENSORS, config=CONFIG)
    left = iter(range(calls_before))

    def fail_later(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any) -> Any:
            if next(left, None) is None:
                raise OSError("no space left on device")
            return original(*args)

        monkeypatch.setattr(owner, name, call)

    fail_later(os, "fsync")
    fail_later(Path, "rename")
    new = {"new": torch.ones(1)}
    with pytest.raises(OSError, match="no space"):
        save_bundle(folder, tensors=new, config={}, card="new")
    monkeypatch.undo()
    tensors, config = load_bundle(folder)
    assert (set(tensors), config) in [(set(TENSORS), CONFIG), ({"new"}, {})]
    save_bundle(folder, tensors=new, config={})
    assert set(load_bundle(folder)[0]) == {"new"}
    assert names(tmp_path) == {"bundle"}


def test_machine_that_stops_between_the_two_renames_loses_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "bundle"
    save_bundle(folder, tensors=TENSORS, config=CONFIG)
    folder.rename(checkpoints._aside(folder))
    assert load_bundle(folder)[1] == CONFIG
    save_bundle(folder, tensors={}, config={"new": True})
    assert load_bundle(folder)[1] == {"new": True}
    assert names(tmp_path) == {"bundle"}


@pytest.mark.parametrize("left", ["README.md", "config.json", "model.safetensors"])
def test_a_removal_that_was_stopped_is_finished(left: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    save_bundle(folder, tensors=TENSORS, config=CONFIG)
    aside = checkpoints._aside(folder)
    aside.mkdir()
    (aside / left).write_text("of the save before")
    save_bundle(folder, tensors={}, config={"new": True})
    assert load_bundle(folder)[1] == {"new": True}
    assert names(tmp_path) == {"bundle"}


def test_folder_of_a_user_under_the_name_we_use_aside_is_left_alone(
    tmp_path: Path,
) -> None:
    aside = checkpoints._aside(tmp_path / "bundle")
    aside.mkdir()
    (aside / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds something else"):
        save_bundle(tmp_path / "bundle", tensors={}, config={})
    assert (aside / "thesis.txt").read_text() == "mine"


def test_what_a_killed_save_left_is_never_read(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    save_bundle(temporary_name(folder), tensors=TENSORS, config=CONFIG)
    with pytest.raises(CheckpointError, match="which is not a folder"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(name: str, tmp_path: Path) -> None:
    save_bundle(tmp_path, tensors=TENSORS, config=CONFIG)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"without '{name}'"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"format": "bsym_skl', r"config\.json', which is damaged"),
        (b"\xff\xfe", r"config\.json', which is damaged"),
        (b"[" * 100_000, r"config\.json', which is damaged"),
        (b"[1]", "of another format"),
        (b'{"model_type": "vit"}', "of another format"),
        (b'{"format": "bsym_sklearn", "format_version": 3}', "in format 3. Install"),
        (b'{"format": "bsym_sklearn", "format_version": 2}', "it has no hashes"),
        (b'{"format": "bsym_sklearn", "format_version": true}', "in format True"),
        (b'{"format": "bsym_sklearn"}', "in format None"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b'{"format": 1e999}', "1e999 is too large"),
        (b'{"format": ' + b"1" * 10_000 + b"}", "Exceeds the limit"),
    ],
)
def test_config_that_cannot_be_used_is_an_error(
    text: bytes, message: str, tmp_path: Path
) -> None:
    save_bundle(tmp_path, tensors=TENSORS, config=CONFIG)
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=message):
        load_bundle(tmp_path)


def test_config_cannot_name_another_file(tmp_path: Path) -> None:
    save_file({"secret": torch.ones(1)}, tmp_path / "other.safetensors")
    folder = tmp_path / "bundle"
    save_bundle(folder, tensors=TENSORS, config={"weights": "../other.safetensors"})
    assert_same(load_bundle(folder)[0], TENSORS)


def test_truncated_weights_are_an_error(tmp_path: Path) -> None:
    save_bundle(tmp_path, tensors=TENSORS, config=CONFIG)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="which is damaged"):
            load_bundle(tmp_path)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    places=st.lists(st.integers(0, 200), min_size=1, max_size=9),
    byte=st.integers(0, 255),
)
def test_damaged_weights_are_a_checkpoint_error_or_harmless(
    places: list[int], byte: int, tmp_path: Path
) -> None:
    path = tmp_path / "last.safetensors"
    save_file(TENSORS, path, {"state": "{}"})
    content = bytearray(path.read_bytes())
    for place in places:
        content[place % len(content)] = byte
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):  # anything else fails the test
        load_state(path)


# Weights


def test_all_that_is_wrong_with_weights_is_listed_and_nothing_is_loaded() -> None:
    layer = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: x.clone() for name, x in layer.state_dict().items()}
    tensors = {
        "0.weight": torch.zeros(3, 2),
        "1.weight": torch.zeros(1, 3, 1),
        "0.bias": torch.zeros(4, dtype=torch.int64),
        "extra": torch.zeros(1),
    }
    with pytest.raises(CheckpointError) as caught:
        load_weights(layer, tensors, source="'a folder'")
    assert str(caught.value) == (
        "Sequential needs other weights than those in 'a folder'. Missing: 1.bias. "
        "Unexpected: extra. Of another shape: 0.bias (4,) instead of (3,), "
        "1.weight (1, 3, 1) instead of (1, 3). Of another type: 0.bias torch.int64 "
        "instead of torch.float32."
    )
    assert_same(layer.state_dict(), before)


def test_long_lists_of_wrong_weights_are_cut() -> None:
    tensors = {f"extra{i}": torch.zeros(1) for i in range(14)}
    with pytest.raises(CheckpointError, match=r"extra9 and 4 more\.$"):
        load_weights(nn.Identity(), tensors, source="a dict")


def test_weights_are_copied_in_the_type_of_the_module() -> None:
    layer = nn.Linear(2, 1)
    weights = {"weight": torch.ones(1, 2).double(), "bias": torch.ones(1).double()}
    load_weights(layer, weights, source="a dict")
    weights["bias"].zero_()
    assert (layer.bias.dtype, layer.bias.item()) == (torch.float32, 1.0)


# States


def test_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "made" / "last.safetensors"
    metadata = {"epoch": 3, "history": [{"loss": 0.5}], "name": "Zoë", "format": "x"}
    save_state(path, TENSORS, metadata)
    save_state(path, TENSORS, metadata)
    tensors, loaded = load_state(path)
    assert_same(tensors, TENSORS)
    assert loaded == metadata
    assert names(path.parent) == {path.name}


def test_failed_write_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    save_state(path, TENSORS, {"epoch": 1})

    def fail(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        save_state(path, TENSORS, {"epoch": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_state(path, TENSORS, {"loss": float("nan")})
    assert load_state(path)[1] == {"epoch": 1}
    assert names(tmp_path) == {path.name}


def test_state_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    with pytest.raises(CheckpointError, match="which is not a file"):
        load_state(path)
    save_file(TENSORS, path)
    with pytest.raises(CheckpointError, match="of another format"):
        load_state(path)
    own = {"format": "bsym_sklearn", "format_version": 1}
    save_file(TENSORS, path, {"state": json.dumps(own)})
    with pytest.raises(CheckpointError, match="it has no metadata"):
        load_state(path)
    save_state(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="which is damaged"):
        load_state(path)


@pytest.mark.parametrize("what", ["a weight", "the metadata"])
def test_state_whose_values_have_changed_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "last.safetensors"
    save_state(path, TENSORS, {"epoch": 3, "lr": 0.25, "steps": {9: 1, 10: 2}})
    content = path.read_bytes()
    old, new = (b"0.25", b"0.35")
    if what == "a weight":
        old, new = (value.numpy().tobytes() for value in torch.tensor([5.0, 4.0]))
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(CheckpointError, match=r"damaged .its values have changed"):
        load_state(path)
    path.write_bytes(content)
    assert load_state(path)[1]["steps"] == {"9": 1, "10": 2}


def test_state_of_another_fit_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "a.safetensors", TENSORS, {"epoch": 3})
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"saved as 'a\.safetensors'. Copy the"):
        load_state(tmp_path / "b.safetensors")


def test_full_disk_is_named_with_the_file(tmp_path: Path, monkeypatch: Any) -> None:
    def stop(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(OSError, match=r"No space left on device: '.*last"):
        save_state(tmp_path / "last.safetensors", TENSORS, {})
    assert names(tmp_path) == set()


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    save_state(tmp_path / "state", TENSORS, {})
    save_bundle(tmp_path / "bundle", tensors=TENSORS, config={})
    for path in (tmp_path / "state", tmp_path / "bundle" / "config.json"):
        assert path.stat().st_mode == plain.stat().st_mode
