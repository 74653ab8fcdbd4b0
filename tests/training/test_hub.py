"""Bundles on the Hugging Face hub, without a connection to it."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bsym_sklearn import (
    BrainLMEmbedder,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    CheckpointError,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.training.bundle_format import BUNDLE_FILES
from bsym_sklearn.training.hub import push_to_hub, resolve_source

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
errors = importlib.import_module("huggingface_hub.errors")
TINY = {"dim": 8, "depth": 1, "max_epochs": 0, "random_state": 0}
NAME, COMMIT = "owner/name", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model() -> BrainSymphonyEmbedder:
    return BrainSymphonyEmbedder(**TINY).fit(make_cohort(6, 5, 30).data)


class FakeHub:
    """A folder that the functions of huggingface_hub write to and read from."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.private = True
        for name in ("create_repo", "create_branch", "repo_info", "upload_folder"):
            monkeypatch.setattr(hub.HfApi, name, self._method(name))
        monkeypatch.setattr(hub, "snapshot_download", self.download)

    def _method(self, name: str) -> Any:
        def call(api: Any, *args: Any, **options: Any) -> Any:
            self.calls.append((name, options))
            if name == "upload_folder":
                folder = Path(options["folder_path"])
                patterns = options["allow_patterns"]
                shutil.copytree(folder, self.place, ignore=self._others(patterns))
            return SimpleNamespace(private=self.private, oid=COMMIT)

        return call

    def _others(self, patterns: list[str]) -> Any:
        return lambda _, names: [name for name in names if name not in patterns]

    def download(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("snapshot_download", {"repo_id": repo_id, **options}))
        return str(self.place)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub(tmp_path / "hub", monkeypatch)


def options_of(fake: FakeHub, name: str) -> dict[str, Any]:
    (options,) = (options for called, options in fake.calls if called == name)
    return options


# ------------------------------------------------------------------ up and down


def test_a_model_comes_back_from_the_hub(fake: FakeHub, model: Any) -> None:
    X = make_cohort(6, 5, 30).data
    address = push_to_hub(model, NAME)
    assert address == f"hf://{NAME}@{COMMIT}"
    again = BrainSymphonyEmbedder.from_pretrained(address)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    asked = options_of(fake, "snapshot_download")
    assert (asked["repo_id"], asked["revision"]) == (NAME, COMMIT)
    assert asked["allow_patterns"] == list(BUNDLE_FILES)
    assert options_of(fake, "create_repo") == {"private": True, "exist_ok": True}
    assert options_of(fake, "upload_folder")["allow_patterns"] == list(BUNDLE_FILES)


def test_an_address_is_a_start_for_training(fake: FakeHub, model: Any) -> None:
    cohort = make_cohort(6, 5, 30)
    push_to_hub(model, NAME)
    settings: dict[str, Any] = {"dim": 8, "max_epochs": 1, "random_state": 0}
    clf = BrainSymphonyClassifier(pretrained=f"hf://{NAME}", **settings)
    clf.fit(cohort.data, cohort.target)
    assert clf.pretrained == f"hf://{NAME}"
    assert options_of(fake, "snapshot_download")["revision"] is None
    other = BrainLMEmbedder(pretrained=f"hf://{NAME}", max_epochs=0)
    with pytest.raises(CheckpointError, match="cannot use 'name' as `pretrained`"):
        other.fit(cohort.data[["fmri"]])


def test_only_the_files_of_a_bundle_are_uploaded(
    fake: FakeHub, model: Any, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "saved", license="mit")
    (tmp_path / "saved" / "participants.tsv").write_text("private")
    push_to_hub(tmp_path / "saved", NAME, revision="v1", private=False)
    assert sorted(f.name for f in fake.place.iterdir()) == sorted(BUNDLE_FILES)
    assert options_of(fake, "create_branch") == {"branch": "v1", "exist_ok": True}
    assert options_of(fake, "upload_folder")["revision"] == "v1"
    assert 'license: "mit"' in (fake.place / "README.md").read_text()


def test_nothing_goes_to_a_public_repository_unasked(fake: FakeHub, model: Any) -> None:
    fake.private = False
    with pytest.raises(CheckpointError, match=r"everybody can read\. Pass private=Fa"):
        push_to_hub(model, NAME)
    assert not fake.place.exists()
    push_to_hub(model, NAME, private=False)
    assert fake.place.exists()


def test_a_folder_that_is_no_bundle_is_not_uploaded(
    fake: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(CheckpointError, match=r"without 'config\.json'"):
        push_to_hub(tmp_path, NAME)
    assert fake.calls == []


# ------------------------------------------------------------------ the real package


def cached(model: Any, cache: Path) -> None:
    """Put a bundle where huggingface_hub keeps what it has downloaded."""
    repository = cache / "models--owner--name"
    model.save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache of a machine without internet (HF_HUB_OFFLINE=1)."""
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_what_was_downloaded_once_is_used_offline(
    revision: str, model: Any, offline: Path
) -> None:
    cached(model, offline)
    again = BrainSymphonyEmbedder.from_pretrained(f"hf://{NAME}{revision}")
    assert again.seed_ == model.seed_


@pytest.mark.parametrize("address", [f"hf://{NAME}@other", "hf://owner/another"])
def test_what_was_never_downloaded_is_an_error_offline(
    address: str, model: Any, offline: Path
) -> None:
    cached(model, offline)
    message = f"'{address}' needs to be on the Hugging Face hub, or in its cache"
    with pytest.raises(CheckpointError, match=message):
        BrainSymphonyEmbedder.from_pretrained(address)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no route"),
        errors.OfflineModeIsEnabled("offline mode"),
        errors.LocalEntryNotFoundError("not in the cache"),
        errors.HfHubHTTPError.__bases__[0]("too slow\nsecond line"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(
    error: Exception, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    monkeypatch.setattr(hub.HfApi, "create_repo", fail)
    with pytest.raises(CheckpointError, match=r"Check the name and the revision, log"):
        resolve_source("hf://owner/name")
    with pytest.raises(CheckpointError, match=r"Got \w+ \([a-z ]+\)\. Check the name"):
        push_to_hub(model, NAME)


def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"Install 'bsym_sklearn\[hub\]'"):
        resolve_source("hf://owner/name")


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "repo_id",
    [
        *("", "name", "a/b/c", "/name", "owner/", "../name", "o/..", "o/na me"),
        *("o/n\n", "o/n--m", "o/.n", "o/ñ", "o/" + "n" * 97, "https://hub/o/n"),
    ],
)
def test_malformed_names_are_refused(repo_id: str, model: Any) -> None:
    for ask in (
        lambda: resolve_source(f"hf://{repo_id}"),
        lambda: push_to_hub(model, repo_id),
    ):
        with pytest.raises(ValueError, match="needs 'owner/name', of letters"):
            ask()


@pytest.mark.parametrize("revision", ["", "..", "a/../b", "-f", "a b", "a@b", "a//b"])
def test_malformed_revisions_are_refused(revision: str, model: Any) -> None:
    with pytest.raises(ValueError, match="needs a branch, a tag or a commit"):
        resolve_source(f"hf://owner/name@{revision}")
    with pytest.raises(ValueError, match="needs a branch, a tag or a commit"):
        push_to_hub(model, NAME, revision=revision)


def test_paths_and_names_are_resolved_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_source("models/a") == Path("models/a")
    assert resolve_source(tmp_path) == tmp_path
    monkeypatch.setattr(
        "bsym_sklearn.training.hub.fetch_reference_checkpoint",
        lambda verbose: tmp_path / str(verbose),
    )
    assert resolve_source("brainsymphony-reference", verbose=1) == tmp_path / "1"
