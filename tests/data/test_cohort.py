"""check_cohort: every accepted form in, every bad input named."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix, dok_matrix
from skorch.helper import SliceDict

from bsym_sklearn.data import Cohort, check_cohort, is_table
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

R = 4
LENGTHS = (12, 15, 9)


def object_array(cells):
    column = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        column[i] = cell
    return column


def make_sc(rng, n_regions=R):
    weights = rng.uniform(1, 100, size=(n_regions, n_regions))
    weights = np.triu(weights, 1)
    return weights + weights.T


@pytest.fixture
def series(rng):
    return [rng.normal(size=(t, R)) for t in LENGTHS]


@pytest.fixture
def equal(rng):
    return rng.normal(size=(3, 10, R))


@pytest.fixture
def frame(rng, series):
    return pd.DataFrame(
        {
            "fmri": [*series[:2], None],
            "sc": [None, make_sc(rng), make_sc(rng)],
            "age": [30, 40, 50],
            "site": ["a", "b", "a"],
        }
    )


def forms_of_unequal_scans(series, folder):
    paths = []
    for i, x in enumerate(series):
        np.save(folder / f"{i}.npy", x)
        paths.append(folder / f"{i}.npy")
    texts = [str(p) for p in paths]
    return {
        "list": series,
        "tuple": tuple(series),
        "tensors": [torch.as_tensor(x) for x in series],
        "object array": object_array(series),
        "Series": pd.Series(object_array(series)),
        "nested lists": [x.tolist() for x in series],
        "frames": [pd.DataFrame(x) for x in series],
        "paths": paths,
        "texts": texts,
        "array of texts": np.array(texts),
        "Series of texts": pd.Series(texts),
        "DataFrame": pd.DataFrame({"fmri": object_array(series)}),
        "DataFrame of texts": pd.DataFrame({"fmri": texts}),
        "SliceDict": SliceDict(fmri=object_array(series)),
    }


def test_every_form_of_unequal_scans_gives_the_same_cohort(series, tmp_path):
    for name, X in forms_of_unequal_scans(series, tmp_path).items():
        assert not is_table(X), name
        cohort = check_cohort(X)
        assert cohort.modalities == ("fmri",), name
        assert cohort.n_timepoints.tolist() == list(LENGTHS), name
        assert cohort.n_regions == R, name
        for i, x in enumerate(series):
            np.testing.assert_array_equal(
                cohort.read_fmri(i, np.float64), x, err_msg=name
            )


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        torch.as_tensor,
        list,
        lambda x: x.astype(object),
        lambda x: SliceDict(fmri=x),
        lambda x: SliceDict(fmri=torch.as_tensor(x)),
        lambda x: x.tolist(),
    ],
)
def test_every_form_of_equal_scans_gives_the_same_cohort(equal, convert):
    cohort = check_cohort(convert(equal))
    assert not cohort.is_table
    read = np.stack([cohort.read_fmri(i, np.float64) for i in range(3)])
    np.testing.assert_array_equal(read, equal)


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        torch.as_tensor,
        pd.DataFrame,
        lambda x: x.tolist(),
        lambda x: list(x),
        lambda x: pd.DataFrame(x).convert_dtypes(),
    ],
)
def test_a_2d_numeric_x_is_a_table_of_one_time_point_scans(rng, convert):
    values = rng.normal(size=(6, R))
    X = convert(values)
    assert is_table(X)
    cohort = check_cohort(X)
    assert cohort.is_table
    assert cohort.n_timepoints.tolist() == [1] * 6
    np.testing.assert_array_equal(cohort.read_fmri(2, np.float64), values[2:3])


def test_sparse_and_1d_numbers_count_as_tables_for_sklearn_to_refuse(rng):
    for X in (
        csr_matrix(np.eye(3)),
        dok_matrix(np.eye(3)),
        np.zeros(3),
        [1.0, 2.0],
        torch.zeros(3),
        pd.Series([1.0, 2.0]),
        np.float64(3.0),
    ):
        assert is_table(X)


def test_a_frame_without_modality_columns_is_a_table_only_if_numeric():
    assert is_table(pd.DataFrame({"a": [1, 2], "b": [True, False]}))
    assert not is_table(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    assert is_table(pd.DataFrame({"fmri": [1, 2]}), fmri_column="bold")
    assert not is_table(pd.DataFrame({"fmri": [1, 2]}))


@pytest.mark.parametrize(
    "missing", [None, np.nan, pd.NA, pd.NaT, "", " ", float("nan")]
)
def test_every_spelling_of_missing_is_missing(rng, series, missing):
    sc = object_array([make_sc(rng), missing, make_sc(rng)])
    cohort = check_cohort(pd.DataFrame({"fmri": object_array(series), "sc": sc}))
    assert [r is None for r in cohort.sc] == [False, True, False]


def test_frame_keeps_index_covariates_and_region_table(frame):
    frame.index = ["p", "q", "r"]
    frame.attrs["regions"] = pd.DataFrame({"label": list("abcd")})
    cohort = check_cohort(frame)
    assert cohort.modalities == ("fmri", "sc")
    assert cohort.n_timepoints.tolist() == [12, 15, 0]
    assert cohort.index.tolist() == ["p", "q", "r"]
    pd.testing.assert_frame_equal(cohort.covariates, frame[["age", "site"]])
    assert cohort.regions["label"].tolist() == list("abcd")


def test_column_names_can_be_others(frame):
    renamed = frame.rename(columns={"fmri": "bold", "sc": "dwi"})
    cohort = check_cohort(renamed, fmri_column="bold", sc_column="dwi")
    assert cohort.modalities == ("fmri", "sc")
    assert list(cohort.covariates) == ["age", "site"]


def test_slice_dict_keeps_both_modalities_and_covariates(rng, equal):
    sc = np.stack([make_sc(rng) for _ in range(3)])
    cohort = check_cohort(SliceDict(fmri=equal, sc=sc, age=np.array([1, 2, 3])))
    assert cohort.modalities == ("fmri", "sc")
    assert cohort.covariates["age"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(cohort.read_sc(1, np.float64), sc[1])


def test_bare_says_what_a_list_holds(rng):
    sc = [make_sc(rng) for _ in range(2)]
    assert check_cohort(sc, bare="sc").modalities == ("sc",)
    assert check_cohort(np.stack(sc), bare="sc").modalities == ("sc",)


def test_a_cohort_comes_back_as_it_is(series):
    cohort = check_cohort(series)
    assert check_cohort(cohort, n_regions=R) is cohort
    with pytest.raises(
        BrainDataError, match=r"needs scans of 7 regions, as in fit. Got"
    ):
        check_cohort(cohort, n_regions=7)


def test_integers_booleans_and_half_precision_are_read(rng):
    values = rng.integers(0, 100, size=(9, R))
    for x in (values, values > 50, values.astype(np.float16), values.astype(">i2")):
        assert check_cohort([x]).read_fmri(0).dtype == np.float32
    assert check_cohort([values]).read_fmri(0, None).dtype == np.float64
    assert check_cohort([values.astype(np.float16)]).read_fmri(0, None).dtype == "f4"


def test_half_precision_tensors_are_read(rng):
    x = torch.randn(9, R, dtype=torch.bfloat16)
    np.testing.assert_array_equal(check_cohort([x]).read_fmri(0), x.float().numpy())


def test_what_is_read_can_be_changed_without_changing_the_source(series):
    before = series[0].copy()
    x = check_cohort(series).read_fmri(0, np.float64)
    x[:] = 0
    np.testing.assert_array_equal(series[0], before)


def test_take_selects_rows_by_number_mask_and_slice(frame):
    cohort = check_cohort(frame)
    for indices in ([2, 0], np.array([2, 0]), pd.Series([2, 0])):
        part = cohort.take(indices)
        assert part.covariates["age"].tolist() == [50, 30]
        assert part.fmri[0] is None
        assert part.sc[1] is None
        assert part.index.tolist() == [2, 0]
    assert len(cohort.take(np.array([True, False, True]))) == 2
    assert len(cohort.take(slice(1, None))) == 2
    assert len(cohort.take([])) == 0
    assert cohort.take([0]).modalities == ("fmri",)


def test_reading_a_missing_modality_raises(frame):
    with pytest.raises(BrainDataError, match="needs 'fmri' in the row that is read"):
        check_cohort(frame).read_fmri(2)


def test_cohort_can_be_pickled_with_arrays_and_files(series, tmp_path):
    np.save(tmp_path / "a.npy", series[0])
    cohort = check_cohort([*series[:1], tmp_path / "a.npy"])
    loaded = pickle.loads(pickle.dumps(cohort))  # noqa: S301
    assert isinstance(loaded, Cohort)
    np.testing.assert_array_equal(loaded.read_fmri(1), cohort.read_fmri(0))
    assert loaded.fingerprint() == cohort.fingerprint()


def test_fingerprint_depends_on_content_only(rng, series, frame):
    first = check_cohort(series).fingerprint()
    for copy in (np.copy, np.asfortranarray):
        assert check_cohort([copy(x) for x in series]).fingerprint() == first
    assert check_cohort(pd.Series(series, index=list("abc"))).fingerprint() == first
    changed = [series[0] + 1e-9, *series[1:]]
    assert check_cohort(changed).fingerprint() != first
    assert check_cohort(series[::-1]).fingerprint() != first
    sc = make_sc(rng)
    as_sc = pd.DataFrame({"fmri": object_array([sc]), "sc": [None]})
    as_fmri = pd.DataFrame({"fmri": [None], "sc": object_array([sc])})
    assert check_cohort(as_sc).fingerprint() != check_cohort(as_fmri).fingerprint()


def test_fingerprint_of_files_follows_their_change(series, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, series[0])
    first = check_cohort([path]).fingerprint()
    assert check_cohort([str(path)]).fingerprint() == first
    np.save(path, series[1])
    assert check_cohort([path]).fingerprint() != first


def test_fingerprint_is_the_same_in_another_process():
    code = (
        "import numpy as np; from bsym_sklearn.data.cohort import check_cohort;"
        "x = np.arange(60.0).reshape(3, 10, 2) ** 1.5;"
        "print(check_cohort(x).fingerprint())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    here = check_cohort(np.arange(60.0).reshape(3, 10, 2) ** 1.5).fingerprint()
    assert run.stdout.decode().strip() == here


# Bad input, each with its own message that names the scan.


def test_plain_dict_is_refused_and_the_forms_are_named(equal):
    with pytest.raises(
        TypeError, match=r"Got dict, which scikit-learn cannot split.*Sli"
    ):
        check_cohort({"fmri": equal})


@pytest.mark.parametrize(
    ("X", "got"),
    [
        ("cohort", r"'cohort' \(a cohort folder is read by load_cohort\)"),
        (7, "Got int"),
        (None, "Got NoneType"),
        (np.zeros((2, 3, 4, 5)), r"ndarray of shape \(2, 3, 4, 5\)"),
    ],
)
def test_unknown_forms_are_refused(X, got):
    with pytest.raises(TypeError, match=got):
        check_cohort(X)


def test_frame_without_a_modality_column_lists_its_columns():
    X = pd.DataFrame({"bold": [np.zeros((9, 2))], "age": [3]})
    with pytest.raises(
        BrainDataError, match=r"needs a column 'fmri' or 'sc'.*\['bold', "
    ):
        check_cohort(X)


def test_frame_with_two_columns_of_one_name_is_refused(frame):
    doubled = pd.concat([frame, frame[["fmri"]]], axis=1)
    with pytest.raises(BrainDataError, match="needs one column 'fmri'"):
        check_cohort(doubled)


def test_slice_dict_without_a_modality_is_refused(equal):
    with pytest.raises(BrainDataError, match=r"Got the entries \['X'\]"):
        check_cohort(SliceDict(X=equal))


@pytest.mark.parametrize(
    "empty", [[], (), np.zeros((0, 5, 2)), pd.DataFrame({"fmri": []})]
)
def test_empty_cohort_is_refused(empty):
    with pytest.raises(BrainDataError, match="needs at least one scan"):
        check_cohort(empty)


def test_row_without_modality_is_named(frame):
    frame.loc[1, "sc"] = None
    frame["fmri"] = object_array([frame["fmri"][0], None, frame["fmri"][1]])
    with pytest.raises(
        BrainDataError, match="neither 'fmri' nor 'sc', first in scan 1"
    ):
        check_cohort(frame)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_located(series, value):
    series[1][3, 2] = value
    expected = (
        r"who needs finite values in 'fmri'. Got NaN or infinity at time point 3, "
        r"region 2, first in scan 1"
    )
    with pytest.raises(BrainDataError, match=expected):
        check_cohort(series, caller="who")


def test_nan_in_sc_is_located(rng, series):
    sc = make_sc(rng)
    sc[2, 1] = sc[1, 2] = np.nan
    X = pd.DataFrame({"fmri": series[:1], "sc": [sc]})
    with pytest.raises(BrainDataError, match="at region 1, region 2, first in scan 0"):
        check_cohort(X)


def test_nan_in_a_table_is_located(rng):
    X = rng.normal(size=(5, 3))
    X[2, 1] = np.nan
    with pytest.raises(BrainDataError, match=r"in column 1, first in scan 2"):
        check_cohort(X)


def test_values_beyond_float32_are_refused(series):
    series[2][0, 0] = 1e39
    with pytest.raises(
        BrainDataError, match=r"fit into float32.*1e\+39, first in scan 2"
    ):
        check_cohort(series)


@pytest.mark.parametrize("shape", [(), (5,), (2, 5, R)])
def test_cells_that_are_not_2d_are_refused(series, shape):
    series[1] = np.zeros(shape)
    match = rf"Got shape \({', '.join(map(str, shape))},?\), first in scan 1"
    with pytest.raises(BrainDataError, match=match):
        check_cohort(pd.DataFrame({"fmri": object_array(series)}))


@pytest.mark.parametrize("dtype", [complex, "U3", "S3", "M8[s]"])
def test_cells_that_are_not_real_are_refused(series, dtype):
    series[1] = np.zeros((5, R)).astype(int).astype(dtype)
    with pytest.raises(BrainDataError, match=r"needs real numbers.*first in scan 1"):
        check_cohort(series)


def test_cells_that_are_no_arrays_are_refused(series):
    X = pd.DataFrame({"fmri": object_array([series[0], {"a": 1}])})
    with pytest.raises(BrainDataError, match=r"Got dict that cannot be read .*scan 1"):
        check_cohort(X)
    ragged = pd.DataFrame({"fmri": object_array([[[1.0, 2.0], [3.0]]])})
    with pytest.raises(BrainDataError, match=r"Got list that cannot be read .*scan 0"):
        check_cohort(ragged)


def test_filled_missing_cells_are_refused(frame):
    with pytest.raises(BrainDataError, match=r"Got shape \(\), first in scan 2"):
        check_cohort(frame.fillna({"fmri": 0}))


def test_one_transposed_scan_is_named(series):
    series[1] = series[1].T
    with pytest.raises(
        BrainDataError, match=r"\(4, 15\), which looks transposed.*scan 1"
    ):
        check_cohort(series)


def test_scans_transposed_against_sc_or_fit_are_named(rng, series):
    transposed = [x.T for x in series]
    X = pd.DataFrame({"fmri": transposed, "sc": [make_sc(rng) for _ in series]})
    with pytest.raises(BrainDataError, match=r"looks transposed, first in scan 0"):
        check_cohort(X)
    with pytest.raises(BrainDataError, match=r"looks transposed, first in scan 0"):
        check_cohort(transposed[:1], n_regions=R)


def test_all_scans_transposed_with_unequal_lengths_are_refused(series):
    with pytest.raises(BrainDataError, match=r"looks transposed, first in scan 0"):
        check_cohort([x.T for x in series])


def test_more_regions_than_time_points_is_no_error(rng, recwarn):
    assert check_cohort(rng.normal(size=(3, 20, 45))).n_regions == 45
    assert not recwarn.list


def test_different_region_counts_are_named(series, rng):
    series[2] = rng.normal(size=(9, R + 1))
    expected = r"Got 5 regions in 'fmri' and 4 in 'fmri' of scan 0, first in scan 2"
    with pytest.raises(BrainDataError, match=expected):
        check_cohort(series)


def test_region_count_of_fit_is_required(series):
    with pytest.raises(
        BrainDataError, match=r"needs scans of 6 regions, as in fit. Got 4"
    ):
        check_cohort(series, n_regions=6)


def test_sc_of_another_size_than_fmri_is_named(rng, series):
    X = pd.DataFrame({"fmri": series, "sc": [None, make_sc(rng, 5), None]})
    expected = r"Got 4 regions in 'fmri' and 5 in 'sc' of scan 1, first in scan 0"
    with pytest.raises(BrainDataError, match=expected):
        check_cohort(X)


def test_sc_that_is_not_square_is_named(rng, series):
    X = pd.DataFrame({"fmri": series, "sc": [make_sc(rng), np.ones((4, 5)), None]})
    with pytest.raises(BrainDataError, match=r"square.*\(4, 5\), first in scan 1"):
        check_cohort(X)


def test_asymmetric_sc_is_located_and_the_remedy_named(rng):
    sc = make_sc(rng)
    sc[0, 2] = 500.0
    expected = (
        r"Got 500 at \(0, 2\) and .* at \(2, 0\), first in scan 1.*symmetrize='mean'"
    )
    with pytest.raises(BrainDataError, match=expected):
        check_cohort([make_sc(rng), sc], bare="sc")
    assert check_cohort([sc], bare="sc", symmetric_sc="allow").modalities == ("sc",)


def test_asymmetry_of_rounding_is_let_through(rng):
    sc = make_sc(rng)
    sc[0, 1] += 1e-7 * sc.max()
    assert check_cohort([sc], bare="sc").n_regions == R


@pytest.mark.parametrize("sc", [np.zeros((3, 3)), np.eye(3)])
def test_sc_without_connections_is_refused(sc):
    with pytest.raises(BrainDataError, match=r"at least one connection.*scan 0"):
        check_cohort([sc], bare="sc")


def test_constant_regions_are_listed_and_can_be_let_through(series):
    series[1][:, [0, 3]] = 7.5
    expected = r"constant regions 0, 3, first in scan 1.*constant_regions='mask'"
    with pytest.raises(BrainDataError, match=expected):
        check_cohort(series)
    assert check_cohort(series, constant_regions="mask").constant_regions == "mask"


def test_many_constant_regions_are_abbreviated(rng):
    x = rng.normal(size=(9, 20))
    x[:, 4:] = 0
    with pytest.raises(BrainDataError, match="regions 4, 5, 6, 7, 8 and 16 in all"):
        check_cohort([x])


def test_too_short_scans_are_named(rng):
    scans = [rng.normal(size=(t, R)) for t in (9, 1)]
    with pytest.raises(BrainDataError, match=r"at least 2 time points.*Got 1.*scan 1"):
        check_cohort(scans)
    with pytest.raises(BrainDataError, match=r"at least 10 time points.*Got 9.*scan 0"):
        check_cohort(scans, min_timepoints=10)
    assert check_cohort(scans, min_timepoints=1).n_timepoints.tolist() == [9, 1]
    assert check_cohort(scans[1], min_timepoints=10).is_table


def test_no_regions_are_refused():
    with pytest.raises(BrainDataError, match=r"at least one region.*\(9, 0\)"):
        check_cohort([np.zeros((9, 0))])


def test_region_table_of_another_atlas_is_refused(frame):
    frame.attrs["regions"] = pd.DataFrame({"label": list("abc")})
    with pytest.raises(BrainDataError, match="Got 3 rows for 4 regions"):
        check_cohort(frame)
    frame.attrs["regions"] = ["a", "b", "c", "d"]
    with pytest.raises(BrainDataError, match="needs a DataFrame in attrs"):
        check_cohort(frame)


def test_labels_name_participants_or_the_index(frame, series):
    frame["participant_id"] = ["sub-01", "sub-02", "sub-03"]
    assert check_cohort(frame).fmri[1].label == "scan 1 (sub-02)"
    by_name = pd.Series(series, index=list("xyz"))
    assert check_cohort(by_name).fmri[1].label == "scan 1 (y)"
    assert check_cohort(by_name.reset_index(drop=True)).fmri[1].label == "scan 1"
    selected = check_cohort(pd.DataFrame({"fmri": series}).iloc[[2, 1]])
    assert selected.fmri[0].label == "scan 0 (index 2)"


@pytest.mark.parametrize(
    "option", [{"constant_regions": "drop"}, {"symmetric_sc": "no"}, {"bare": "dwi"}]
)
def test_unknown_options_are_refused(series, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be one of"):
        check_cohort(series, **option)


@pytest.mark.parametrize("X", [np.zeros(4), [1.0, 2.0], csr_matrix(np.eye(3)), [["a"]]])
def test_tables_that_sklearn_would_refuse_are_refused_here_too(X):
    with pytest.raises(BrainDataError, match="needs a 2-D table of numbers"):
        check_cohort(X)


def test_ragged_rows_are_refused():
    with pytest.raises(BrainDataError, match="rows of equal length"):
        check_cohort([[1.0, 2.0], [3.0]])


def test_table_that_looks_like_one_scan_warns(rng):
    walk = rng.normal(size=(80, 5)).cumsum(axis=0)
    with pytest.warns(BrainSymphonyWarning, match=r"Pass \[X\] if this is one scan"):
        assert check_cohort(walk).is_table


def test_usual_tables_do_not_warn(rng, recwarn):
    check_cohort(rng.normal(size=(80, 5)))
    check_cohort(rng.normal(size=(40, 5)).cumsum(axis=0))
    check_cohort(np.arange(400).reshape(80, 5))
    check_cohort(np.zeros((80, 5)))
    check_cohort(rng.normal(size=(80, 5)) + 5 * np.repeat([[0], [1]], 40, axis=0))
    assert not recwarn.list
