"""In other people's pipelines: nilearn's maskers and connectivity, Optuna's studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nilearn.connectome import ConnectivityMeasure
from nilearn.image import index_img
from nilearn.maskers import MultiNiftiLabelsMasker
from sklearn.base import is_classifier
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedKFold,
    check_cv,
    cross_val_score,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

from bsym_sklearn import BrainSymphonyClassifier, BrainSymphonyEmbedder
from bsym_sklearn.data import make_cohort

N, R, T, DIM = 12, 5, 20, 4
TINY: dict[str, Any] = {
    "dim": DIM,
    "depth": 1,
    "perceiver_depth": 0,
    "n_heads": 1,
    "max_epochs": 1,
    "lr": 1e-2,
    "validation_fraction": 0.0,
    "random_state": 0,
}


def embedder(**params: Any) -> BrainSymphonyEmbedder:
    return BrainSymphonyEmbedder(**TINY | params)


def classifier(**params: Any) -> BrainSymphonyClassifier:
    return BrainSymphonyClassifier(**TINY | params)


def assert_scores(scores: np.ndarray, n: int) -> None:
    assert scores.shape == (n,)
    assert ((scores >= 0) & (scores <= 1)).all()


# ------------------------------------------------------------------ nilearn


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return paths of made-up 4-D images, the image of their regions, and classes."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 6, 6), dtype=np.int32)
    labels[1:, 1:, 1:] = rng.integers(1, R + 1, size=(5, 5, 5))
    atlas = folder / "atlas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), atlas)
    cohort = make_cohort(N, R, T, unequal=True)
    paths = []
    for i, series in enumerate(cohort.data["fmri"]):
        voxels = rng.normal(size=(*labels.shape, len(series)))
        for region in range(R):
            voxels[labels == region + 1] += 9 * series[:, region]
        paths.append(folder / f"sub-{i}_bold.nii.gz")
        image = nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4))
        nibabel.save(image, paths[-1])
    return {"paths": [str(p) for p in paths], "atlas": atlas, "y": cohort.target}


def masker_of(images: dict[str, Any]) -> MultiNiftiLabelsMasker:
    return MultiNiftiLabelsMasker(
        labels_img=str(images["atlas"]), standardize=None, verbose=0
    )


def linear() -> LogisticRegression:
    return LogisticRegression(max_iter=1000)


def test_the_embedder_stands_where_connectivity_would(images):
    for step in (ConnectivityMeasure(vectorize=True), embedder()):
        model = Pipeline(
            [("masker", masker_of(images)), ("brain", step), ("clf", linear())]
        )
        scores = cross_val_score(
            model, images["paths"], images["y"], cv=3, error_score="raise"
        )
        assert_scores(scores, 3)


def test_paths_to_images_embed_as_their_series_do(images):
    series = masker_of(images).fit_transform(images["paths"])
    assert [x.shape[1] for x in series] == [R] * N
    direct = embedder().fit_transform(series)
    piped = make_pipeline(masker_of(images), embedder()).fit_transform(images["paths"])
    np.testing.assert_array_equal(piped, direct)
    assert piped.shape == (N, R * DIM)


def test_the_classifier_follows_a_masker(images):
    model = make_pipeline(masker_of(images), classifier()).fit(
        images["paths"], images["y"]
    )
    assert model.predict_proba(images["paths"][:2]).shape == (2, 2)
    assert model.predict(images["paths"][0:1]).shape == (1,)  # one person


def test_a_search_may_choose_between_connectivity_and_the_embedder(images):
    series = masker_of(images).fit_transform(images["paths"])
    model = Pipeline([("brain", embedder()), ("clf", linear())])
    choices = [ConnectivityMeasure(vectorize=True), embedder()]
    search = GridSearchCV(model, {"brain": choices}, cv=2, error_score="raise")
    search.fit(series, images["y"])
    assert_scores(search.cv_results_["mean_test_score"], 2)
    assert search.best_params_["brain"] in choices


def test_features_stand_beside_connectivity(images):
    series = masker_of(images).fit_transform(images["paths"])
    connectivity = ConnectivityMeasure(vectorize=True, discard_diagonal=True)
    union = FeatureUnion([("connectivity", connectivity), ("brain", embedder())])
    features = union.fit_transform(series)
    n_edges = R * (R - 1) // 2
    assert features.shape == (N, n_edges + R * DIM)
    np.testing.assert_array_equal(
        features[:, n_edges:], embedder().fit_transform(series)
    )
    np.testing.assert_allclose(
        features[:, :n_edges], connectivity.fit_transform(series), atol=1e-6
    )
    model = make_pipeline(union, linear())
    scores = cross_val_score(model, series, images["y"], cv=2, error_score="raise")
    assert_scores(scores, 2)


def test_connectivity_and_embedding_of_a_frame_by_column():
    cohort = make_cohort(N, R, T)
    both = ColumnTransformer(
        [
            ("connectivity", ConnectivityMeasure(vectorize=True), "fmri"),
            ("brain", embedder(), ["fmri", "sc"]),
        ]
    )
    features = both.fit_transform(cohort.data)
    assert features.shape == (N, R * (R + 1) // 2 + R * DIM)
    assert np.isfinite(features).all()


def haxby_blocks(folder: Path, out: Path) -> dict[str, Any]:
    """Cut one 4-D image into blocks of faces and houses, and parcellate its mask."""
    bold = nibabel.load(folder / "bold.nii.gz")
    mask = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj) > 0
    labels = np.zeros(mask.shape, dtype=np.int32)
    parcels = KMeans(R, n_init=1, random_state=0).fit_predict(np.argwhere(mask))
    labels[mask] = parcels + 1
    nibabel.save(nibabel.Nifti1Image(labels, bold.affine), out / "atlas.nii.gz")
    text = (folder / "attributes_literal.txt").read_text()
    shown, run = np.array([line.split() for line in text.splitlines()]).T
    paths, y, groups = [], [], []
    for kind in ("face", "house"):
        for number in np.unique(run):
            volumes = np.flatnonzero((shown == kind) & (run == number))
            paths.append(str(out / f"{kind}{number}.nii.gz"))
            nibabel.save(index_img(bold, volumes), paths[-1])
            y.append(kind)
            groups.append(number)
    return {"paths": paths, "atlas": out / "atlas.nii.gz", "y": y, "groups": groups}


def test_blocks_of_a_real_image_run_through_the_pipeline(shared, tmp_path):
    blocks = haxby_blocks(shared / "data" / "nifti_haxby", tmp_path)
    model = Pipeline(
        [
            ("masker", masker_of(blocks)),
            ("brain", embedder(standardize="cohort_zscore", t_r=2.5)),
            ("clf", linear()),
        ]
    )
    scores = cross_val_score(
        model,
        blocks["paths"],
        blocks["y"],
        groups=blocks["groups"],
        cv=GroupKFold(3),
        error_score="raise",
    )
    assert_scores(scores, 3)
    model.fit(blocks["paths"], blocks["y"])
    assert model["brain"].preprocessing_.window == 9  # volumes of a block
    assert model["clf"].coef_.shape == (1, R * DIM)
    Z = model[:-1].transform(blocks["paths"])
    assert np.isfinite(Z).all()
    assert len(np.unique(Z[:, 0])) == len(Z) == 24


# ------------------------------------------------------------------ Optuna


@pytest.fixture
def optuna() -> Any:
    """Return optuna, quiet, or skip."""
    module = pytest.importorskip("optuna", reason="optuna is not installed")
    module.logging.set_verbosity(module.logging.ERROR)
    return module


def test_a_study_tunes_a_pipeline(optuna):
    cohort = make_cohort(N, R, T)
    X, y = cohort.data, cohort.target
    scores_of: dict[int, float] = {}

    def objective(trial: Any) -> float:
        model = make_pipeline(embedder(), linear()).set_params(
            brainsymphonyembedder__lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True),
            brainsymphonyembedder__pooling=trial.suggest_categorical(
                "pooling", ["mean", "regions"]
            ),
        )
        folds = cross_val_score(
            model, X, y, cv=2, scoring="neg_log_loss", error_score="raise"
        )
        scores_of[trial.number] = folds.mean()
        return scores_of[trial.number]

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective, n_trials=4)
    assert study.best_value == max(scores_of.values())
    assert len(scores_of) == 4
    assert study.best_params["pooling"] in ("mean", "regions")
    again = objective(optuna.trial.FixedTrial(study.best_params))
    assert again == study.best_value  # the seed makes the objective repeatable


class Report:
    """A scikit-learn callback that reports each epoch's loss and prunes."""

    def __init__(self, trial: Any, pruned: type[Exception]) -> None:
        self.trial = trial
        self.pruned = pruned

    def setup(self, estimator: Any, context: Any) -> None: ...

    def teardown(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_begin(self, estimator: Any, context: Any, **_: Any) -> None: ...

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None, **_: Any
    ) -> bool:
        if context.task_name == "epoch" and fitted_estimator is not None:
            epoch = context.task_id
            loss = fitted_estimator.history_["train_loss"].iloc[-1]
            self.trial.report(loss, step=epoch)
            if self.trial.should_prune():
                raise self.pruned
        return False


def test_a_callback_prunes_a_trial_within_its_fit(optuna):
    cohort = make_cohort(N, R, T)
    epochs: list[int] = []

    def objective(trial: Any) -> float:
        model = classifier(max_epochs=6).set_callbacks(
            Report(trial, optuna.TrialPruned)
        )
        model.fit(cohort.data, cohort.target)
        epochs.append(model.n_iter_)
        return model.history_["train_loss"].iloc[-1]

    for upper, state in ((10.0, "COMPLETE"), (1e-6, "PRUNED")):
        pruner = optuna.pruners.ThresholdPruner(upper=upper, n_warmup_steps=2)
        study = optuna.create_study(pruner=pruner)
        study.optimize(objective, n_trials=1)
        assert study.trials[0].state.name == state
    assert epochs == [6]
    assert len(study.trials[0].intermediate_values) == 3


experimental = pytest.mark.filterwarnings(
    "ignore:OptunaSearchCV is experimental", "ignore:`optuna.terminator` module"
)


@experimental
def test_optuna_search_works_and_hides_that_it_is_a_classifier(optuna):
    integration = pytest.importorskip(
        "optuna_integration", reason="optuna-integration is not installed"
    )
    cohort = make_cohort(N, R, T)
    X, y = cohort.data, cohort.target
    lr = optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    search = integration.OptunaSearchCV(
        classifier(), {"lr": lr}, n_trials=2, cv=2, random_state=0, error_score="raise"
    )
    search.fit(X, y)
    assert 1e-4 <= search.best_params_["lr"] <= 1e-2
    assert search.predict_proba(X).shape == (N, 2)
    # the trap: an outer cv=3 would not be stratified, unlike GridSearchCV's
    assert is_classifier(GridSearchCV(classifier(), {"lr": [1e-3]}))
    assert not is_classifier(search)
    assert isinstance(check_cv(3, y, classifier=is_classifier(search)), KFold)
    outer = StratifiedKFold(2)  # the way out: name the folds
    assert_scores(cross_val_score(search, X, y, cv=outer, error_score="raise"), 2)


@experimental
def test_optuna_search_prunes_by_partial_fit(optuna):
    integration = pytest.importorskip(
        "optuna_integration", reason="optuna-integration is not installed"
    )
    cohort = make_cohort(N, R, T)
    lr = optuna.distributions.FloatDistribution(1e-3, 1e-2, log=True)
    search = integration.OptunaSearchCV(
        classifier(),
        {"lr": lr},
        n_trials=2,
        cv=2,
        enable_pruning=True,
        max_iter=3,
        random_state=0,
        error_score="raise",
    ).fit(cohort.data, cohort.target)
    states = [trial.state.name for trial in search.trials_]
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert "COMPLETE" in states
    assert search.best_score_ == max(
        trial.value for trial in search.trials_ if trial.state.name == "COMPLETE"
    )
