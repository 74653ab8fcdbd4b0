"""What scikit-learn's checks ask of 2-D tables, asked of every form of scans."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.helper import SliceDict

from bsym_sklearn import (
    BrainDataError,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    BrainSymphonyWarning,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.data.folder import RegionTable

N, R, T = 8, 5, 30
# float64: padding and other batches then change no more than rounding.
TINY = {
    "dim": 8,
    "depth": 1,
    "n_heads": 2,
    "max_epochs": 2,
    "batch_size": 5,
    "lr": 1e-2,
    "random_state": 0,
    "dtype": "float64",
}
ESTIMATORS = [BrainSymphonyEmbedder, BrainSymphonyClassifier, BrainSymphonyRegressor]
CELLS = ("both", "fmri_only", "sc_only", "missing", "unequal")


@lru_cache
def make_frame(cells: str = "both", n_timepoints: int = T) -> pd.DataFrame:
    """Return scans as a DataFrame, with the modalities that `cells` names."""
    cohort = make_cohort(
        N,
        R,
        n_timepoints,
        missing_sc=0.25 if cells == "missing" else 0.0,
        missing_fmri=0.25 if cells == "missing" else 0.0,
        unequal=cells == "unequal",
    )
    X = cohort.data.assign(label=cohort.target)
    return X.drop(columns={"fmri_only": ["sc"], "sc_only": ["fmri"]}.get(cells, []))


def target_of(kind: type, X: pd.DataFrame) -> np.ndarray | None:
    """Return a target that fits the kind of estimator."""
    if kind is BrainSymphonyEmbedder:
        return None
    return (X["label"] if kind is BrainSymphonyClassifier else X["age"]).to_numpy()


def output(estimator: Any, X: Any) -> np.ndarray:
    """Return what the estimator says about each scan, in numbers."""
    for name in ("transform", "predict_proba"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.predict(X)


@lru_cache
def fitted(kind: type, cells: str) -> Any:
    """Return an estimator fitted on `make_frame(cells)`; not to be changed."""
    X = make_frame(cells)
    return kind(**TINY).fit(X, target_of(kind, X))


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))  # noqa: S301


def hash_of(X: Any) -> str:
    """Return a hash of everything in `X`."""
    return joblib.hash(X)


each_estimator = pytest.mark.parametrize("kind", ESTIMATORS)
each_kind_of_cells = pytest.mark.parametrize("cells", CELLS)


@each_kind_of_cells
@each_estimator
def test_fit_learns_sizes_and_modalities(kind, cells):
    model = fitted(kind, cells)
    expected = {"fmri_only": ("fmri",), "sc_only": ("sc",)}
    assert model.modalities_ == expected.get(cells, ("fmri", "sc"))
    assert model.n_features_in_ == model.n_regions_ == R
    assert not hasattr(model, "feature_names_in_")
    assert len(model.history_) == model.n_iter_ == 2
    values = output(model, make_frame(cells))
    assert len(values) == N
    assert np.isfinite(values).all()
    assert np.ptp(values, axis=0).max() > 0  # scans differ


@each_kind_of_cells
@each_estimator
def test_fit_and_prediction_change_neither_x_nor_parameters(kind, cells):
    X = make_frame(cells)
    y = target_of(kind, X)
    model = kind(**TINY)
    before = hash_of([X, y]), copy.deepcopy(model.get_params())
    assert model.fit(X, y) is model
    output(model, X)
    assert (hash_of([X, y]), model.get_params()) == before


@each_kind_of_cells
@each_estimator
def test_same_seed_gives_the_same_bits(kind, cells):
    X = make_frame(cells)
    first = output(fitted(kind, cells), X)
    again = clone(fitted(kind, cells)).fit(X, target_of(kind, X))
    np.testing.assert_array_equal(output(again, X), first)
    again.fit(X, target_of(kind, X))  # a second fit forgets the first
    np.testing.assert_array_equal(output(again, X), first)


@each_estimator
def test_another_seed_gives_other_numbers(kind):
    X = make_frame()
    other = kind(**TINY | {"random_state": 1}).fit(X, target_of(kind, X))
    assert not np.allclose(output(other, X), output(fitted(kind, "both"), X))


@each_estimator
def test_fit_forgets_an_earlier_fit_on_other_scans(kind):
    X, other = make_frame(), make_cohort(6, 4, 20).data
    model = kind(**TINY).fit(other, [0, 1, 0, 1, 0, 1])
    model.fit(X, target_of(kind, X))
    assert model.n_features_in_ == R
    np.testing.assert_array_equal(output(model, X), output(fitted(kind, "both"), X))


@each_kind_of_cells
@each_estimator
def test_predictions_do_not_depend_on_the_other_scans(kind, cells):
    X, model = make_frame(cells), fitted(kind, cells)
    whole = output(model, X)
    alone = np.concatenate([output(model, X.iloc[[i]]) for i in range(N)])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-10)
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_allclose(
        output(model, X.iloc[order]), whole[order], rtol=0, atol=1e-10
    )


@each_kind_of_cells
@each_estimator
def test_pickles_and_copies_predict_the_same_bits(kind, cells):
    X, model = make_frame(cells), fitted(kind, cells)
    for twin in (pickled(model), copy.deepcopy(model)):
        np.testing.assert_array_equal(output(twin, X), output(model, X))
        assert twin.get_params() == model.get_params()


@each_estimator
def test_clone_is_unfitted_and_keeps_parameters(kind):
    twin = clone(fitted(kind, "both"))
    assert twin.get_params() == fitted(kind, "both").get_params()
    with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance is not"):
        output(twin, make_frame())


@each_estimator
@pytest.mark.parametrize(
    "use",
    [
        "transform",
        "transform_regions",
        "reconstruct",
        "score",
        "predict",
        "predict_proba",
        "attention",
    ],
)
def test_use_before_fit_raises(kind, use):
    if not hasattr(kind, use):
        assert kind is not BrainSymphonyEmbedder or use.startswith("predict")
        return
    arguments = (make_frame(), np.zeros(N)) if use == "score" else (make_frame(),)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        getattr(kind(), use)(*arguments)


@pytest.mark.parametrize("what", ["history_", "n_iter_", "backbone_"])
def test_attributes_before_fit_raise(what):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        getattr(BrainSymphonyEmbedder(), what)


@each_estimator
def test_save_and_names_before_fit_raise(kind, tmp_path):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        kind().save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# --------------------------------------------------------------- containers


def stack(X: pd.DataFrame, column: str) -> np.ndarray:
    return np.stack(X[column].tolist())


def write_npy(X: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return the scans as paths to .npy files."""
    paths: dict[str, list[str | None]] = {}
    for column in X.columns.intersection(["fmri", "sc"]):
        paths[column] = []
        for i, cell in enumerate(X[column]):
            path = None if cell is None else str(folder / f"{column}{i}.npy")
            if path is not None:
                np.save(path, cell)
            paths[column].append(path)
    return X.assign(**paths)


def write_tsv(X: pd.DataFrame, folder: Path) -> list[Path]:
    """Return the series as paths to .tsv files, at full precision."""
    paths = [folder / f"{i}.tsv" for i in range(len(X))]
    for path, cell in zip(paths, X["fmri"], strict=True):
        np.savetxt(path, cell, delimiter="\t", fmt="%.17g")
    return paths


FMRI_FORMS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "list": lambda X, _: X["fmri"].tolist(),
    "tuple": lambda X, _: tuple(X["fmri"]),
    "object array": lambda X, _: X["fmri"].to_numpy(),
    "Series": lambda X, _: X["fmri"],
    "3-D array": lambda X, _: stack(X, "fmri"),
    "Fortran-ordered array": lambda X, _: np.asfortranarray(stack(X, "fmri")),
    "tensor": lambda X, _: torch.from_numpy(stack(X, "fmri")),
    "list of tensors": lambda X, _: [torch.from_numpy(x) for x in X["fmri"]],
    "nested lists": lambda X, _: [x.tolist() for x in X["fmri"]],
    "SliceDict": lambda X, _: SliceDict(fmri=stack(X, "fmri")),
    "frame with an empty sc": lambda X, _: X.assign(sc=None),
    "npy paths in a frame": lambda X, folder: write_npy(X, folder),
    "npy paths in a list": lambda X, folder: write_npy(X, folder)["fmri"].tolist(),
    "list of memory maps": lambda X, folder: [
        np.load(path, mmap_mode="r") for path in write_npy(X, folder)["fmri"]
    ],
}


@pytest.mark.parametrize("form", FMRI_FORMS)
@pytest.mark.parametrize("kind", ESTIMATORS[:2])
def test_equal_series_give_equal_bits_in_every_container(kind, form, tmp_path):
    X = make_frame("fmri_only")
    reference = fitted(kind, "fmri_only")
    same = FMRI_FORMS[form](X, tmp_path)
    expected = output(reference, X)
    model = kind(**TINY, missing_modality="allow")
    got = output(model.fit(same, target_of(kind, X)), X)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(output(reference, same), expected)


@each_estimator
def test_both_modalities_give_equal_bits_in_every_container(kind, tmp_path):
    X, model = make_frame(), fitted(kind, "both")
    expected = output(model, X)
    forms = [
        X.assign(fmri=[torch.from_numpy(x) for x in X["fmri"]]),
        X[["sc", "fmri"]].iloc[::-1].iloc[::-1],
        SliceDict(fmri=stack(X, "fmri"), sc=stack(X, "sc")),
        SliceDict(fmri=X["fmri"].to_numpy(), sc=X["sc"].to_numpy()),
        write_npy(X, tmp_path),
        write_npy(X, tmp_path).map(lambda c: Path(c) if str(c).endswith("npy") else c),
    ]
    for form in forms:
        np.testing.assert_array_equal(output(model, form), expected)


@each_estimator
def test_missing_cells_may_be_none_nan_na_or_empty_text(kind):
    X, model = make_frame("missing"), fitted(kind, "missing")
    expected = output(model, X)
    for missing in (np.nan, pd.NA, ""):
        cells = {
            column: pd.Series(
                [missing if cell is None else cell for cell in X[column]], dtype=object
            )
            for column in ("fmri", "sc")
        }
        np.testing.assert_array_equal(output(model, X.assign(**cells)), expected)


def test_text_files_give_equal_numbers(tmp_path):
    X, model = make_frame("fmri_only"), fitted(BrainSymphonyEmbedder, "fmri_only")
    paths = write_tsv(X, tmp_path)
    np.testing.assert_allclose(output(model, paths), output(model, X), atol=1e-12)
    expected = output(model, X.iloc[[0]])
    np.testing.assert_allclose(output(model, [str(paths[0])]), expected, atol=1e-12)


def test_lists_of_unequal_lengths_equal_the_frame():
    X = make_frame("unequal").drop(columns="sc")
    assert np.ptp(X["fmri"].map(len)) > 0
    model = BrainSymphonyEmbedder(**TINY | {"validation_fraction": 0.0})
    from_frame = model.fit_transform(X)
    np.testing.assert_array_equal(model.fit_transform(X["fmri"].tolist()), from_frame)
    np.testing.assert_array_equal(model.fit_transform(X["fmri"].to_numpy()), from_frame)


def test_single_precision_cells_give_the_same_numbers_up_to_rounding():
    X = make_frame("fmri_only")
    single = X.assign(fmri=[x.astype(np.float32) for x in X["fmri"]])
    model = fitted(BrainSymphonyEmbedder, "fmri_only")
    np.testing.assert_allclose(output(model, single), output(model, X), atol=1e-4)


def test_covariates_index_and_order_of_columns_change_nothing():
    X, model = make_frame(), fitted(BrainSymphonyEmbedder, "both")
    other = X[["age", "sc", "fmri"]].set_index(pd.Index([f"s{i}" for i in range(N)]))
    np.testing.assert_array_equal(output(model, other), output(model, X))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_have_the_type_of_an_array_or_of_the_model(dtype):
    X = make_frame("fmri_only")
    model = BrainSymphonyEmbedder(**TINY | {"dtype": dtype, "max_epochs": 0}).fit(X)
    assert model.transform(X).dtype == dtype
    assert model.transform(X["fmri"].tolist()).dtype == dtype
    array = stack(X, "fmri")
    assert model.transform(array).dtype == np.float64
    assert model.transform(array.astype(np.float32)).dtype == np.float32
    assert model.transform_regions(X).dtype == dtype


# --------------------------------------------------------------- modalities


@each_estimator
def test_a_fitted_model_reads_rows_of_either_modality_alone(kind):
    X, model = make_frame(), fitted(kind, "both")
    both = output(model, X)
    fmri_only, sc_only = (
        output(model, X.assign(**{hidden: None})) for hidden in ("sc", "fmri")
    )
    assert fmri_only.shape == sc_only.shape == both.shape
    for a, b in ((both, fmri_only), (both, sc_only), (fmri_only, sc_only)):
        assert not np.allclose(a, b)


@each_estimator
@pytest.mark.parametrize("vanished", ["fmri", "sc"])
def test_a_vanished_modality_raises_unless_allowed(kind, vanished):
    X, model = make_frame(), fitted(kind, "both")
    rest = X.drop(columns=vanished)
    message = (
        rf"{kind.__name__} was fitted with \['fmri', 'sc'\] and needs '{vanished}'. "
        r"Got an X without it. Pass a DataFrame with that column \(cells may be "
        r"missing\), or set missing_modality='allow'."
    )
    with pytest.raises(BrainDataError, match=message):
        output(model, rest)
    lenient = copy.deepcopy(model).set_params(missing_modality="allow")
    np.testing.assert_array_equal(
        output(lenient, rest), output(model, X.assign(**{vanished: None}))
    )


def test_a_list_has_no_place_for_connectomes():
    X, model = make_frame(), fitted(BrainSymphonyEmbedder, "both")
    with pytest.raises(BrainDataError, match=r"needs 'sc'\. Got an X without it"):
        model.transform(X["fmri"].tolist())
    lenient = copy.deepcopy(model).set_params(missing_modality="allow")
    np.testing.assert_array_equal(
        lenient.transform(X["fmri"].tolist()), model.transform(X.assign(sc=None))
    )


@each_estimator
def test_a_modality_that_fit_did_not_see_is_ignored_with_a_warning(kind):
    X, model = make_frame(), fitted(kind, "fmri_only")
    message = rf"{kind.__name__} was fitted on \['fmri'\] and ignores 'sc'"
    with pytest.warns(BrainSymphonyWarning, match=message):
        got = output(model, X)
    np.testing.assert_array_equal(got, output(model, X[["fmri"]]))


def test_rows_without_the_modality_of_fit_raise():
    X = make_frame().copy()
    model = fitted(BrainSymphonyEmbedder, "fmri_only")
    X["fmri"] = pd.Series([None, *X["fmri"].iloc[1:]], dtype=object)
    message = r"needs one of \['fmri'\] in every row. Got neither, first in scan 0"
    with (
        pytest.warns(BrainSymphonyWarning, match="ignores 'sc'"),
        pytest.raises(BrainDataError, match=message),
    ):
        model.transform(X)


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [("fmri", ("fmri",)), ("sc", ("sc",)), ("both", ("fmri", "sc"))],
)
def test_modalities_chooses_what_the_model_reads(modalities, expected):
    X = make_frame()
    model = BrainSymphonyEmbedder(**TINY, modalities=modalities).fit(X)
    assert model.modalities_ == expected
    assert (model.backbone_.gate is None) == (len(expected) == 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrainSymphonyWarning)
        ignored = set(expected) ^ {"fmri", "sc"}
        shuffled = X.assign(**{m: X[m].to_numpy()[::-1] for m in ignored})
        np.testing.assert_array_equal(model.transform(shuffled), model.transform(X))


@pytest.mark.parametrize("modalities", ["both", "sc"])
def test_modalities_that_x_lacks_raise(modalities):
    message = (
        f"BrainSymphonyEmbedder needs 'sc' as modalities='{modalities}' asks for it. "
        r"Got only \['fmri'\]. Add the column or use modalities='auto'."
    )
    with pytest.raises(BrainDataError, match=message):
        BrainSymphonyEmbedder(**TINY, modalities=modalities).fit(
            make_frame("fmri_only")
        )


# --------------------------------------------------------------- bad input


def with_cell(column: str, value: Any) -> pd.DataFrame:
    """Return the frame with another cell in scan 2."""
    X = make_frame().copy()
    cells = X[column].tolist()
    cells[2] = value(cells[2].copy()) if callable(value) else value
    X[column] = pd.Series(cells, dtype=object)
    return X


def set_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(cell: np.ndarray) -> np.ndarray:
        cell[0, 1] = value
        return cell

    return change


def make_constant(cell: np.ndarray) -> np.ndarray:
    cell[:, 3] = 7.0
    return cell


BAD_INPUT: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "plain dict": (
        lambda: dict(make_frame()[["fmri", "sc"]]),
        TypeError,
        r"needs X in a form that it knows. Got dict, which scikit-learn cannot split. "
        r"Pass a DataFrame with the columns 'fmri' and/or 'sc', a list, .*SliceDict",
    ),
    "text": (
        lambda: "cohort",
        TypeError,
        "Got the text or path 'cohort' .*load_cohort",
    ),
    "None": (lambda: None, TypeError, "Got NoneType"),
    "4-D array": (lambda: np.zeros((2, 3, 4, 5)), TypeError, "of shape"),
    "sparse": (lambda: sparse.csr_array(np.eye(4)), TypeError, "[Ss]parse"),
    "complex table": (
        lambda: np.ones((4, 5)) * 1j,
        ValueError,
        "Complex data not supported",
    ),
    "empty frame": (lambda: make_frame().iloc[:0], ValueError, "at least one scan"),
    "frame of other columns": (
        lambda: make_frame()[["site", "age"]],
        ValueError,
        "needs a column 'fmri' or 'sc'",
    ),
    "NaN": (
        lambda: with_cell("fmri", set_first(np.nan)),
        ValueError,
        "first in scan 2",
    ),
    "infinity": (
        lambda: with_cell("sc", set_first(np.inf)),
        ValueError,
        "finite values in 'sc'.*first in scan 2",
    ),
    "asymmetric": (
        lambda: with_cell("sc", set_first(1e6)),
        ValueError,
        "symmetric matrices in 'sc'.*first in scan 2",
    ),
    "not square": (
        lambda: with_cell("sc", lambda cell: cell[:3]),
        ValueError,
        "square matrices in 'sc'.*first in scan 2",
    ),
    "other regions": (
        lambda: with_cell("fmri", lambda cell: cell[:, :4]),
        ValueError,
        "first in scan 2",
    ),
    "transposed": (
        lambda: with_cell("fmri", lambda cell: cell.T),
        ValueError,
        "looks transposed, first in scan 2",
    ),
    "too short": (
        lambda: with_cell("fmri", lambda cell: cell[:4]),
        ValueError,
        "at least 5 time points in every scan. Got 4, first in scan 2",
    ),
    "constant": (
        lambda: with_cell("fmri", make_constant),
        ValueError,
        "constant region 3, first in scan 2",
    ),
    "text in a cell": (
        lambda: with_cell("fmri", "nowhere.npy"),
        ValueError,
        "needs readable files in 'fmri'.*first in scan 2",
    ),
    "1-D cell": (lambda: with_cell("fmri", np.ones(5)), ValueError, "2-D array in"),
    "no modality": (
        lambda: with_cell("fmri", None).assign(sc=None),
        ValueError,
        "at least one modality per row.*first in scan 2",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
@each_estimator
def test_bad_input_raises_at_fit_and_at_prediction(kind, case):
    make_bad, error, message = BAD_INPUT[case]
    X = make_bad()
    with pytest.raises(error, match=message):
        kind(**TINY).fit(X, [0, 1] * (N // 2))
    with pytest.raises(error, match=message):
        output(fitted(kind, "both"), X)


@each_estimator
def test_other_regions_than_in_fit_raise(kind):
    X = make_cohort(4, R + 1, T).data
    message = (
        f"{kind.__name__} needs scans of {R} regions, as in fit. Got {R + 1} regions"
    )
    with pytest.raises(BrainDataError, match=message):
        output(fitted(kind, "both"), X)


@pytest.mark.parametrize("length", [5, 29, 31, 64])
@each_estimator
def test_scans_of_other_lengths_than_in_fit_are_read(kind, length):
    model = fitted(kind, "both")
    values = output(model, make_frame("both", length))
    assert values.shape == output(model, make_frame()).shape
    assert np.isfinite(values).all()


def test_one_series_as_a_table_warns():
    series = np.cumsum(np.random.default_rng(0).normal(size=(60, R)), axis=0)
    model = BrainSymphonyEmbedder(**TINY | {"max_epochs": 1})
    with pytest.warns(BrainSymphonyWarning, match=r"Pass \[X\] if this is one scan"):
        table = model.fit_transform(series)
    assert table.shape == (60, R * 8)
    assert model.fit_transform([series]).shape == (1, R * 8)


def test_tables_remember_names_and_scans_do_not():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(9, R)), columns=list("abcde"))
    model = BrainSymphonyEmbedder(**TINY).fit(table)
    assert model.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(table.rename(columns={"a": "z"}))
    assert not hasattr(model.fit(make_frame()), "feature_names_in_")


def with_labels(X: pd.DataFrame, labels: str) -> pd.DataFrame:
    """Return the scans with names for their regions."""
    X = X.copy()
    X.attrs["regions"] = RegionTable({"label": [*labels]})
    return X


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_regions_of_prediction_are_those_of_fit(estimator: Any) -> None:
    X = make_frame()
    y = np.arange(N) % 2
    model = estimator(**TINY).fit(with_labels(X, "abcde"), y)
    predict = getattr(model, "predict", None) or model.transform
    predict(with_labels(X, "abcde"))
    bare = make_frame().copy()
    bare.attrs = {}
    predict(bare)  # without names
    with pytest.raises(BrainDataError, match=r"Got 'c' instead of 'b' as region 1"):
        predict(with_labels(X, "acbde"))


def test_a_row_without_the_modality_that_is_read_is_refused_by_fit() -> None:
    X = make_frame().copy()
    X["fmri"] = [None, *X["fmri"][1:]]
    for modalities in ("fmri", "sc"):
        if modalities == "sc":
            X = make_frame().copy()
            X["sc"] = [None, *X["sc"][1:]]
        model = BrainSymphonyEmbedder(**TINY, modalities=modalities)
        with pytest.raises(BrainDataError, match=r"Got neither, first in scan 0"):
            model.fit(X)


def test_a_refit_that_fails_leaves_nothing_to_predict_with() -> None:
    X, y = make_frame(), np.arange(N) % 2
    model = BrainSymphonyClassifier(**TINY).fit(X, y)
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(X, np.where(y, "a", "b"), sample_weight=-np.ones(N))
    with pytest.raises(NotFittedError):
        model.predict(X)
    regressor = BrainSymphonyRegressor(**TINY).fit(X, y)
    with pytest.raises(BrainDataError):  # refused at the door: the old fit stays
        regressor.fit([], y)
    assert np.isfinite(regressor.predict(X)).all()


def test_a_target_that_counts_for_nothing_sets_no_scale() -> None:
    X, y = make_frame(), np.arange(N, dtype=float)
    weights = np.ones(N)
    y[0], weights[0] = 1e6, 0
    model = BrainSymphonyRegressor(**TINY).fit(X, y, sample_weight=weights)
    assert (model.y_mean_, model.y_scale_) == (y[1:].mean(), y[1:].std())
    assert np.abs(model.predict(X)).max() < 100


def test_a_dict_of_class_weights_need_not_name_all_classes() -> None:
    X, y = make_frame(), np.arange(N) % 2
    model = BrainSymphonyClassifier(**TINY, class_weight={1: 2.0})
    model.partial_fit(X, y, classes=[0, 1])
    model.partial_fit(X[y == 0], y[y == 0])
    assert model.n_partial_fits_ == 1
    assert not hasattr(model.fit(X, y), "n_partial_fits_")


def test_windows_that_do_not_cover_a_scan_leave_a_score() -> None:
    model = BrainSymphonyEmbedder(**TINY, n_windows=1, window=10).fit(make_frame())
    assert np.isfinite(model.score(make_frame()))


def test_networks_of_an_earlier_fit_are_forgotten(tmp_path: Path) -> None:
    X = make_frame().copy()
    X.attrs["regions"] = RegionTable({"network": [*"aabbb"]})
    model = BrainSymphonyEmbedder(**TINY, pooling="network").fit(X)
    assert len(model.networks_) == R
    fewer = [x[:, :4] for x in X["fmri"] if x is not None]
    model.set_params(pooling="regions").fit(fewer).save_pretrained(tmp_path / "model")
    loaded = BrainSymphonyEmbedder.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(fewer), model.transform(fewer))


@pytest.mark.parametrize("device", ["mps", "cuda:7"])
def test_a_model_of_a_device_that_is_not_here_is_loaded(
    tmp_path: Path, device: str
) -> None:
    X = make_frame()
    model = BrainSymphonyEmbedder(**TINY).fit(X)
    expected = model.transform(X)
    model.device = device
    model.save_pretrained(tmp_path / "model")
    loaded = BrainSymphonyEmbedder.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X), expected)
