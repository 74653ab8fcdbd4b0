"""Every model by name is made, fitted, and fairly treated."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import create_trial
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from bsym_sklearn import (
    BlendClassifier,
    BlendRegressor,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    Candidate,
    FeatureClassifier,
    FeatureRegressor,
    RegionAmplitude,
    list_models,
    make_candidate,
    make_model,
    model_info,
    search_space,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.estimators.catalogue import FOUNDATIONS, SIZES, TASKS

EVERYTHING = ("fmri", "sc", "confounds")
CONFOUNDS = ["age", "site"]
EPOCHS = ("max_epochs", "pretrain_epochs")
ALL = [(name, task) for task in TASKS for name in list_models(task, has=EVERYTHING)]
PRETRAINED = [
    name for name in list_models() if make_candidate(name, size="small").pretrainer
]
each_model = pytest.mark.parametrize(("name", "task"), ALL)


def make_data(n_scans: int = 12) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    cohort = make_cohort(n_scans, 6, 40)
    X = cohort.data.assign(site=["a", "b"] * (n_scans // 2))
    targets = {
        "classification": np.where(cohort.target, "patient", "control"),
        "regression": np.linspace(20, 80, n_scans),
    }
    return X, targets


def shorten(model: Any) -> Any:
    """Set one epoch of every training that would take more."""
    names = model.get_params(deep=True)
    trained = [n for n in names if n.split("__")[-1] in EPOCHS and names[n]]
    return model.set_params(**dict.fromkeys(trained, 1))


def make_short(name: str, task: str, **options: Any) -> Any:
    options = {"confounds": CONFOUNDS, "random_state": 0, "window": 32} | options
    return shorten(make_model(name, task, "small", **options))


def output(model: Any, X: Any) -> np.ndarray:
    return model.predict_proba(X) if is_classifier(model) else model.predict(X)


@each_model
def test_every_model_is_fitted_and_predicts(name: str, task: str) -> None:
    X, targets = make_data()
    model = make_short(name, task)
    assert is_classifier(model) == (task == "classification")
    assert is_regressor(model) == (task == "regression")
    fitted = clone(model).fit(X, targets[task])
    predicted = output(fitted, X)
    assert predicted.shape == ((12, 2) if is_classifier(model) else (12,))
    assert np.isfinite(predicted).all()
    np.testing.assert_allclose(  # one scan alone
        output(fitted, X[:1]), predicted[:1], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", ["dummy", "confounds", "tangent+sc", "mean_mlp"])
def test_models_are_scored_in_folds(name: str) -> None:
    X, targets = make_data(16)
    model = make_short(name, "classification")
    assert cross_val_score(model, X, targets["classification"], cv=2).shape == (2,)


def test_models_are_listed_by_task_and_by_what_a_cohort_has() -> None:
    assert "confounds" not in list_models()
    assert "confounds" in list_models(has=EVERYTHING)
    assert list_models(has=["sc"]) == [
        "dummy",
        "sc",
        "sc-ridge",
        "brainsymphony-random",
        "brainsymphony-scratch",
        "brainsymphony-frozen",
        "brainsymphony-finetuned",
    ]
    assert "tangent-ridge" not in list_models("regression")
    assert "tangent-kernel_ridge" in list_models("regression")
    families = [list_models(has=EVERYTHING, family=f) for f in ("floor", "ours")]
    assert families[0] == ["dummy", "confounds", "amplitude"]
    assert all("brainsymphony" in name for name in families[1])
    assert set(list_models("regression")) < set(list_models())


def test_every_model_is_described() -> None:
    infos = [model_info(name) for name in list_models(has=EVERYTHING)]
    assert len({info.label for info in infos}) == len(infos)
    assert all(info.sizes in ((), SIZES) for info in infos)
    assert model_info("brain_jepa-frozen").reference.startswith("Dong")
    assert model_info("correlation+sc").needs == ("fmri", "sc")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FOUNDATIONS)
def test_sizes_grow(name: str, size: str) -> None:
    parameters = make_model(f"{name}-scratch", size=size).get_params()
    expected = FOUNDATIONS[name].sizes[size]
    assert {key: parameters[key] for key in expected} == expected
    base = make_model(f"{name}-scratch").get_params()
    assert (base == make_model(f"{name}-scratch", size="base").get_params()) is True
    assert make_model("mean_mlp", size=size).network == "mean_mlp"  # one size


def test_all_networks_are_made_with_the_same_settings() -> None:
    options: dict[str, Any] = {
        "group_column": "family",
        "window": 50,
        "batch_size": 7,
        "random_state": 3,
    }
    for name in [*list_models(family="network"), *PRETRAINED]:
        parameters = make_model(name, **options).get_params(deep=True)
        for key, value in options.items():
            found = {parameters[n] for n in parameters if n.split("__")[-1] == key}
            is_drawn = key == "random_state" and name.endswith("blend")
            assert found == {value} or is_drawn
        assert "mask" in {
            parameters[n] for n in parameters if n.endswith("constant_regions")
        }
    assert make_model("tangent", **options).group_column == "family"


def test_blends_have_networks_of_three_seeds_and_tangent_connectivity() -> None:
    networks = {
        "mean_mlp-blend": ["mean_mlp"],
        "brainsymphony-blend": ["spatial", "states"],
    }
    for name, kinds in networks.items():
        seeded = [f"{kind}{i}" for i in (1, 2, 3) for kind in kinds]
        for task, kind in zip(TASKS, (BlendClassifier, BlendRegressor), strict=True):
            blend = make_model(name, task, random_state=5, group_column="family")
            assert isinstance(blend, kind)
            found = [member for member, _ in blend.members]
            assert found == [*seeded, "tangent", "tangent_kernel"]
            assert blend.group_column == "family"
            same = make_model(name, task, random_state=5)
            for network in kinds:
                seeds = [
                    blend.get_params()[f"{network}{i}__random_state"] for i in (1, 2, 3)
                ]
                assert len({*seeds}) == 3
                assert seeds[0] == same.get_params()[f"{network}1__random_state"]
    streams = dict(make_model("brainsymphony-blend").members)
    for stream in ("spatial", "states"):
        assert streams[f"{stream}1"].readouts == stream
        assert streams[f"{stream}1"].random_state is None


def test_models_of_fmri_take_no_notice_of_connectomes() -> None:
    X, targets = make_data()
    y = targets["classification"]
    for name in ("brainsymphony-streams", "brainsymphony-blend", "mean_mlp-blend"):
        assert model_info(name).needs == ("fmri",)
        both, fmri = (
            make_short(name, "classification").fit(x, y)
            for x in (X, X.drop(columns="sc"))
        )
        np.testing.assert_array_equal(output(both, X), output(fmri, X))


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_candidate_starts_from_what_its_pretrainer_saved(
    name: str, tmp_path: Path
) -> None:
    X, targets = make_data()
    candidate = make_candidate(name, size="small", window=32, random_state=0)
    assert candidate.pretrainer.max_epochs == 50
    fitted = shorten(clone(candidate.pretrainer)).fit(X)
    fitted.save_pretrained(tmp_path / "weights")
    model = clone(candidate.estimator)
    model.set_params(**{candidate.pretrained_parameter: tmp_path / "weights"})
    names = model.get_params(deep=True)
    if "finetuned" in name:
        assert names["pretrain_epochs"] == 0
    else:
        epochs = [names[n] for n in names if n.split("__")[-1] == "max_epochs"]
        assert epochs == [0]
    model = shorten(model).fit(X, targets["classification"])
    by_name = make_short(name, "classification", pretrained=tmp_path / "weights")
    by_name.fit(X, targets["classification"])
    np.testing.assert_array_equal(output(model, X), output(by_name, X))


def test_models_that_start_from_weights_share_one_pretrainer() -> None:
    for prefix in FOUNDATIONS:
        shared = [n for n in PRETRAINED if prefix in n]
        parameters = [make_candidate(n).pretrainer.get_params() for n in shared]
        assert len(parameters) >= 2
        assert all(p == parameters[0] for p in parameters)


def test_without_weights_a_model_is_pretrained_in_its_own_fit() -> None:
    frozen = make_model("brainsymphony-frozen")
    assert isinstance(frozen, FeatureClassifier)
    assert isinstance(frozen.features, BrainSymphonyEmbedder)
    assert frozen.features.max_epochs == 50
    finetuned = make_model("brainsymphony-finetuned")
    assert isinstance(finetuned, BrainSymphonyClassifier)
    assert finetuned.pretrain_epochs == 50
    assert make_model("brainsymphony-scratch").pretrain_epochs == 0
    assert make_model("brainsymphony-random").features.max_epochs == 0


def test_seeded_candidates_are_those_with_a_random_state() -> None:
    assert make_candidate("mean_mlp").seeded
    assert make_candidate("tangent+brainsymphony").seeded
    assert make_candidate("brainsymphony-blend").seeded
    assert not make_candidate("tangent").seeded
    assert not make_candidate("confounds", confounds=CONFOUNDS).seeded
    own = make_pipeline(RegionAmplitude(), LogisticRegression())
    assert Candidate(own, "own").seeded


def test_candidates_know_their_kind() -> None:
    candidate = make_candidate("sc", "regression")
    assert isinstance(candidate.estimator, FeatureRegressor)
    assert (candidate.label, candidate.needs) == ("SC + linear", ("sc",))
    assert candidate.family == "classical"
    assert isinstance(make_candidate("dummy").estimator, DummyClassifier)


@each_model
def test_what_is_to_tune_are_parameters_of_the_model(name: str, task: str) -> None:
    space = search_space(name, task)
    parameters = make_model(name, task, confounds=CONFOUNDS).get_params(deep=True)
    assert set(space) <= set(parameters)
    assert all(isinstance(d, BaseDistribution) for d in space.values())
    tuned = model_info(name).family in ("network", "foundation", "ours")
    linear = "tangent" in name or name.split("+")[0] == "correlation"
    frozen = name.endswith(("random", "frozen", "blend"))
    assert bool(space) == (tuned and not linear and not frozen)


def test_every_corner_of_a_space_can_be_trained() -> None:
    X, targets = make_data()
    for name in ("mean_mlp", "brainlm-scratch", "brainsymphony-finetuned"):
        space = search_space(name)
        for end in (0, -1):
            params = {
                key: d.choices[end] if hasattr(d, "choices") else (d.low, d.high)[end]
                for key, d in space.items()
            }
            create_trial(params=params, distributions=space, value=0.0)
            model = make_short(name, "classification").set_params(**params)
            assert np.isfinite(
                model.fit(X, targets["classification"]).predict_proba(X)
            ).all()


def test_a_space_without_optuna_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"Install bsym_sklearn\[tune\]"):
        search_space("mean_mlp")
    assert search_space("tangent") == {}


def test_what_cannot_be_made_is_named() -> None:
    with pytest.raises(ValueError, match=r"`name` must be one of .* Got 'svm'"):
        make_model("svm")
    with pytest.raises(ValueError, match=r"`task` must be one of .* Got 'ranking'"):
        make_model("tangent", "ranking")
    with pytest.raises(ValueError, match=r"`size` must be one of .* Got 'huge'"):
        make_candidate("brainlm-scratch", size="huge")
    with pytest.raises(ValueError, match=r"'sc-ridge' is for \['classification'\]"):
        make_model("sc-ridge", "regression")
    with pytest.raises(ValueError, match=r"'confounds' needs `confounds`. Got none"):
        make_model("confounds")
    with pytest.raises(ValueError, match="'mean_mlp' starts from no weights"):
        make_model("mean_mlp", pretrained="folder")
    with pytest.raises(ValueError, match="`family` must be one of"):
        list_models(family="best")
    with pytest.raises(ValueError, match="`task` must be one of"):
        search_space("tangent-ridge", "regression")
