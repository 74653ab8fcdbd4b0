"""``bsym pretrain``: flags, configs, outputs and resuming."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.cli.pretrain import pretrain
from bsym_sklearn.data import load_cohort

FAST = ("--size", "small", "--epochs", 1, "--set", "dim=8", "--set", "n_heads=2")


def weights(bundle: Path) -> bytes:
    return (bundle / "model.safetensors").read_bytes()


def test_a_model_is_saved_and_equals_that_of_python(run, folder, tmp_path) -> None:
    out = tmp_path / "model"
    result = run("pretrain", folder, "--out", out, *FAST, "--window", 20)
    assert result.stdout == f"{out}\n"
    assert "12 scans of 6 participants, 5 regions, fmri and sc, 1 epochs" in (
        result.stderr
    )
    saved = BrainSymphonyEmbedder.from_pretrained(out)
    assert (saved.dim, saved.preprocessing_.window, saved.random_state) == (8, 20, 0)
    python = BrainSymphonyEmbedder(
        dim=8,
        depth=1,
        n_heads=2,
        window=20,
        max_epochs=1,
        random_state=0,
        constant_regions="mask",
    )
    X = load_cohort(folder)
    assert (python.fit(X).transform(X) == saved.transform(X)).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.toml"]


def test_a_config_gives_the_same_bits_as_the_flags(run, folder, tmp_path) -> None:
    flags = (*FAST, "--window", 20, "--lr", 3e-4, "--seed", 5)
    run("pretrain", folder, "--out", tmp_path / "a", *flags)
    settings = tomllib.loads((tmp_path / "a.toml").read_text())
    assert settings["set"] == ["dim=8", "n_heads=2"]
    config = tmp_path / "run.json"
    config.write_text(json.dumps({k.replace("_", "-"): v for k, v in settings.items()}))
    for name, path in (("b", tmp_path / "a.toml"), ("c", config)):
        run("pretrain", "--config", path, "--out", tmp_path / name)
        assert weights(tmp_path / name) == weights(tmp_path / "a")
    run("pretrain", "--config", config, "--out", tmp_path / "d", "--seed", 6)
    assert weights(tmp_path / "d") != weights(tmp_path / "a")  # the flag has won


def test_an_older_model_is_replaced_only_when_asked(
    run, folder, embedder, tmp_path
) -> None:
    out = tmp_path / "model"
    run("pretrain", folder, "--out", out, *FAST)
    before = weights(out)
    result = run("pretrain", folder, "--out", out, *FAST, code=2)
    assert f"'{out}' is there already. Add --overwrite" in result.stderr
    start = ("--pretrained", embedder, "--epochs", 0)
    run("pretrain", folder, "--out", out, "--overwrite", *start)
    assert weights(out) != before
    result = run("pretrain", folder, "--out", tmp_path, "--overwrite", code=2)
    assert "holds something else than a model" in result.stderr


def test_a_stopped_training_goes_on_to_the_same_bits(
    run, folder, tmp_path, monkeypatch
) -> None:
    flags = (*FAST[:2], "--epochs", 3, *FAST[4:])
    run("pretrain", folder, "--out", tmp_path / "whole", *flags)
    out = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        from bsym_sklearn.training.callbacks import Checkpoint

        kept = Checkpoint.on_epoch_end

        def stop(self, net, **options: object) -> None:
            kept(self, net, **options)
            raise KeyboardInterrupt

        patch.setattr(Checkpoint, "on_epoch_end", stop)
        result = run("pretrain", folder, "--out", out, *flags, code=130)
    assert "Interrupted." in result.stderr
    assert not out.exists()
    assert list((tmp_path / "resumed.checkpoints").iterdir())
    run("pretrain", folder, "--out", out, *flags)
    assert weights(out) == weights(tmp_path / "whole")
    assert not (tmp_path / "resumed.checkpoints").exists()


def test_only_the_first_process_writes_and_prints(
    run, folder, tmp_path, monkeypatch
) -> None:
    fitted = []
    monkeypatch.setattr(
        BrainSymphonyEmbedder, "fit", lambda self, X: fitted.append(len(X)) or self
    )
    monkeypatch.setattr("bsym_sklearn.cli.pretrain._summary", lambda *_: "done")
    monkeypatch.setenv("RANK", "1")
    result = run("pretrain", folder, "--out", tmp_path / "model", *FAST)
    assert fitted == [12]  # it has a part in the training
    assert result.output == ""
    assert not list(tmp_path.iterdir())
    assert run("info", folder).output == ""  # which is for one process alone


def test_a_diverging_training_is_named(run, folder, tmp_path) -> None:
    flags = (*FAST, "--lr", 1e30, "--epochs", 3)
    result = run("pretrain", folder, "--out", tmp_path / "m", *flags, code=5)
    assert "Error: The loss of pretraining became nan" in result.stderr
    assert "Traceback" not in result.stderr
    result = run("pretrain", folder, "--out", tmp_path / "m", *flags, "--debug", code=5)
    assert "FloatingPointError" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--set", "dimm=8"), "There is no parameter 'dimm'. Did you mean 'dim'?"),
        (("--set", "dim=wide"), "dim is a int. Got 'wide'."),
        (("--set", "dim"), "Write NAME=VALUE"),
        (("--set", "mask_ratio=7"), "mask_ratio == 7, must be < 1"),
        (("--lr", "-1"), "-1.0 is not in the range x>0"),
        (("--model", "brainlm", "--modalities", "sc"), "brainlm reads fmri only."),
        (("--epoch", "3"), "No such option '--epoch'"),
        (("--entity", "task=rest"), "choose among the files in --derivatives"),
    ],
)
def test_wrong_settings_are_named(run, folder, tmp_path, flags, message) -> None:
    result = run("pretrain", folder, "--out", tmp_path / "m", *flags, code=2)
    assert message in result.stderr
    assert not list(tmp_path.iterdir()) or "mask_ratio" in message  # found in fit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown name 'epoch'. Did you mean 'epochs'?"),
        ("epochs = 'many'", "'many' is not a valid integer"),
        ("epochs = 1.5", "'1.5' is not a valid integer"),
        ("epochs = true", "needs one value for 'epochs'. Got True."),
        ("overwrite = 1", "needs true or false for 'overwrite'. Got 1."),
        ("set = 'dim=8'", "needs a list for 'set'. Got 'dim=8'."),
        ("epochs = [3]", "needs one value for 'epochs'. Got [3]."),
        ("epochs: 3", "cannot be read"),
        ("model = 'brainlmm'", "'brainlmm' is not one of"),
    ],
)
def test_wrong_configs_are_named(run, folder, tmp_path, text, message) -> None:
    config = tmp_path / "run.toml"
    config.write_text(text)
    arguments = ("pretrain", folder, "--out", tmp_path / "m", "--config", config)
    assert message in run(*arguments, code=2).stderr


def test_every_setting_can_be_saved_and_read_again(run, tmp_path) -> None:
    from bsym_sklearn.cli.settings import read_settings, write_settings

    values = {
        "a": 'say "hi"\\\n\t\x7f\x01 é 脑 🧠',
        "b": 1e-5,
        "c": ("x", "y"),
        "d": True,
    }
    write_settings(tmp_path / "s.toml", {**values, "e": None, "f": ()}, command="x")
    lists, flags = dict.fromkeys("abd", False) | {"c": True}, {"d": True}
    flags = dict.fromkeys("abc", False) | flags
    again = read_settings(tmp_path / "s.toml", lists, flags)
    assert again == {**values, "b": "1e-05", "c": ["x", "y"]}


def test_names_of_options_are_those_of_the_estimator() -> None:
    names = {param.name for param in pretrain.params}
    own = set(BrainSymphonyEmbedder().get_params())
    shared = {"window", "batch_size", "lr", "t_r", "modalities", "pretrained"}
    shared |= {"group_column", "device", "dtype", "n_jobs", "checkpoint_dir"}
    assert shared <= names & own


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes all")
def test_a_folder_that_cannot_be_written_fails_before_training(
    run, folder, tmp_path
) -> None:
    place = tmp_path / "readonly"
    place.mkdir(mode=0o500)
    result = run("pretrain", folder, "--out", place / "m", *FAST, code=1)
    assert "Permission denied" in result.stderr


def test_files_of_others_beside_the_model_stay(run, folder, tmp_path) -> None:
    out, notes = tmp_path / "model", tmp_path / "model.toml"
    notes.write_text("# my notes\n")
    result = run("pretrain", folder, "--out", out, *FAST, code=2)
    assert "model.toml', where the settings are kept, is there" in result.stderr
    assert notes.read_text() == "# my notes\n"
    notes.unlink()
    mine = tmp_path / "model.checkpoints" / "mine.safetensors"
    mine.parent.mkdir()
    mine.write_text("mine")
    result = run("pretrain", folder, "--out", out, *FAST, code=2)
    assert "model.checkpoints', where a stopped training is kept" in result.stderr
    assert mine.read_text() == "mine"
