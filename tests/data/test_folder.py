"""Cohort folders and frames made from arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing

from bsym_sklearn.data import check_cohort, load_cohort, make_cohort_frame
from bsym_sklearn.exceptions import BrainDataError


@pytest.fixture
def folder(tmp_path, rng):
    root = tmp_path / "cohort"
    for name in ("fmri", "sc"):
        (root / name).mkdir(parents=True)
    for i in (1, 2, 3):
        np.save(root / "fmri" / f"s{i}.npy", rng.normal(size=(9, 2)))
    np.save(root / "sc" / "s1.npy", np.ones((2, 2)))
    write(
        root,
        "participant_id\tage\tcode\tsex\tfmri\tsc",
        "01\t31.5\t007\tF\tfmri/s1.npy\tsc/s1.npy",
        "02\tn/a\t010\tM\tfmri/s2.npy\tn/a",
        "02\t44\t011\tn/a\tfmri/s3.npy\t",
    )
    (root / "regions.tsv").write_text("label\tx\n10\t1.5\n11\t-2\n")
    return root


def write(root, *lines):
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")


def test_folder_becomes_a_frame_of_paths_and_typed_covariates(folder):
    X = load_cohort(folder)
    assert list(X.columns) == ["participant_id", "age", "code", "sex", "fmri", "sc"]
    assert X["participant_id"].tolist() == ["01", "02", "02"]
    assert X["age"].dtype == float
    assert np.isnan(X["age"][1])
    assert X["code"].tolist() == ["007", "010", "011"]
    assert X["sex"].tolist() == ["F", "M", None]
    assert X["fmri"][0] == str(folder.resolve() / "fmri" / "s1.npy")
    assert X["sc"].tolist()[1:] == [None, None]
    assert X.attrs["regions"]["x"].tolist() == [1.5, -2.0]
    cohort = check_cohort(X)
    assert cohort.modalities == ("fmri", "sc")
    assert cohort.fmri[1].label == "scan 1 (02)"
    assert len(cohort.regions) == 2


def test_region_table_survives_what_sklearn_and_pandas_do(folder):
    X = load_cohort(folder)
    parts = [
        X.iloc[[0, 2]],
        X[["fmri", "sc"]],
        _safe_indexing(X, np.array([1, 2])),
        train_test_split(X, random_state=0)[0],
        pd.concat([X.iloc[:1], X.iloc[1:]]),
        pd.concat([X, load_cohort(folder)]),
        X.merge(X[["age", "fmri"]], on="fmri"),
        X.copy(),
    ]
    for part in parts:
        pd.testing.assert_frame_equal(
            part.attrs["regions"], X.attrs["regions"], check_frame_type=False
        )


def test_cohorts_of_different_atlases_concatenate_without_a_region_table(folder):
    X = load_cohort(folder)
    (folder / "regions.tsv").write_text("label\na\nb\n")
    assert "regions" not in pd.concat([X, load_cohort(folder)]).attrs


def test_region_table_still_compares_cell_by_cell_with_a_value(folder):
    regions = load_cohort(folder).attrs["regions"]
    assert (regions == "10").to_numpy().sum() == 1 or (regions == 10).to_numpy().any()
    assert (regions["x"] > 0).tolist() == [True, False]


def test_a_folder_of_one_modality_and_no_regions(folder):
    write(folder, "participant_id\tsc", "a\tsc/s1.npy")
    (folder / "regions.tsv").unlink()
    X = load_cohort(folder)
    assert list(X.columns) == ["participant_id", "sc"]
    assert X.attrs == {}
    assert check_cohort(X).modalities == ("sc",)


def test_a_folder_without_covariates_or_without_rows(folder):
    write(folder, "fmri", "fmri/s1.npy")
    assert list(load_cohort(folder)) == ["fmri"]
    write(folder, "participant_id\tfmri")
    empty = load_cohort(folder)
    assert empty.shape == (0, 2)
    with pytest.raises(BrainDataError, match="needs at least one scan"):
        check_cohort(empty)


def test_columns_can_have_other_names_and_get_ours(folder):
    write(folder, "participant_id\tbold", "a\tfmri/s1.npy")
    assert list(load_cohort(folder, fmri="bold")) == ["participant_id", "fmri"]


def test_links_inside_the_folder_are_followed(folder):
    (folder / "fmri" / "link.npy").symlink_to(folder / "fmri" / "s1.npy")
    write(folder, "participant_id\tfmri", "a\tfmri/link.npy")
    assert check_cohort(load_cohort(folder)).n_timepoints.tolist() == [9]


@pytest.mark.parametrize(
    "cell",
    ["/etc/passwd", "../outside.npy", "fmri/../../outside.npy", "C:\\a.npy", "..\\a"],
)
def test_cells_outside_the_folder_are_refused(folder, cell):
    np.save(folder.parent / "outside.npy", np.zeros((9, 2)))
    write(folder, "participant_id\tfmri", "a\tfmri/s1.npy", f"b\t{cell}")
    with pytest.raises(
        BrainDataError, match=r"inside the cohort folder.*first in row 1, c"
    ):
        load_cohort(folder)


def test_links_out_of_the_folder_are_refused(folder):
    np.save(folder.parent / "outside.npy", np.zeros((9, 2)))
    (folder / "fmri" / "link.npy").symlink_to(folder.parent / "outside.npy")
    write(folder, "participant_id\tfmri", "a\tfmri/link.npy")
    with pytest.raises(BrainDataError, match=r"Got 'fmri/link.npy', first in row 0"):
        load_cohort(folder)


def test_missing_file_is_named_with_its_row(folder):
    write(folder, "participant_id\tfmri", "a\tfmri/s1.npy", "b\tfmri/s9.npy")
    with pytest.raises(BrainDataError, match=r"no file 'fmri/s9.npy', first in row 1"):
        load_cohort(folder)


def test_same_fmri_file_twice_is_refused(folder):
    write(folder, "participant_id\tfmri", "a\tfmri/s1.npy", "b\t./fmri/s1.npy")
    with pytest.raises(BrainDataError, match=r"Got 's1.npy' in rows 0 and 1"):
        load_cohort(folder)


def test_same_connectome_in_two_sessions_is_allowed(folder):
    write(
        folder,
        "participant_id\tfmri\tsc",
        "a\tfmri/s1.npy\tsc/s1.npy",
        "a\tfmri/s2.npy\tsc/s1.npy",
    )
    assert len(set(load_cohort(folder)["sc"])) == 1


def test_other_layouts_are_refused_with_the_layout_told(folder, tmp_path):
    with pytest.raises(
        BrainDataError, match=r"Got no '.*participants.tsv'. A cohort fold"
    ):
        load_cohort(tmp_path / "nowhere")
    write(folder, "participant_id\tage", "a\t3")
    with pytest.raises(
        BrainDataError, match=r"Got the columns \['participant_id', 'age"
    ):
        load_cohort(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"a\tb\n1\t2\t3\t4\n1\t2\n\t"]
)
def test_damaged_tables_are_refused(folder, content):
    (folder / "participants.tsv").write_bytes(content)
    with pytest.raises(BrainDataError):
        load_cohort(folder)


def test_sequences_are_taken_in_row_order(rng):
    fmri = rng.normal(size=(3, 9, 2))
    X = make_cohort_frame(fmri, [None, np.ones((2, 2)), None], age=[1, 2, 3])
    assert list(X.columns) == ["age", "fmri", "sc"]
    np.testing.assert_array_equal(X["fmri"][2], fmri[2])
    assert check_cohort(X).covariates["age"].tolist() == [1, 2, 3]


def test_repeated_participants_are_a_covariate(rng):
    X = make_cohort_frame(rng.normal(size=(2, 9, 2)), participant_id=["a", "a"])
    assert X["participant_id"].tolist() == ["a", "a"]


def test_dicts_are_joined_by_participant_never_by_position(rng):
    fmri = {name: np.full((9, 2), float(i)) for i, name in enumerate("abc")}
    sc = {name: np.full((2, 2), float(i)) for i, name in enumerate("dcba")}
    X = make_cohort_frame(fmri, sc, age={"d": 4, "c": 3, "b": 2, "a": 1})
    assert X["participant_id"].tolist() == ["a", "b", "c", "d"]
    assert X["age"].tolist() == [1, 2, 3, 4]
    assert [cell[0, 0] for cell in X["sc"]] == [3, 2, 1, 0]
    assert X["fmri"][3] is None


def test_ids_choose_and_order_the_rows_of_dicts():
    fmri = {1: np.zeros((9, 2)), 2: np.ones((9, 2)), 3: np.ones((9, 2))}
    X = make_cohort_frame(fmri, ids=[2, 1], age=[20, 10])
    assert X["participant_id"].tolist() == ["2", "1"]
    assert X["fmri"][1][0, 0] == 0
    assert X["age"].tolist() == [20, 10]


def test_region_table_is_kept(rng):
    regions = pd.DataFrame({"label": ["a", "b"]})
    X = make_cohort_frame(rng.normal(size=(2, 9, 2)), regions=regions)
    assert check_cohort(X.iloc[:1]).regions["label"].tolist() == ["a", "b"]
    assert len(pd.concat([X, X]).attrs["regions"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"Got neither"),
        ({"fmri": [1], "sc": {"a": 1}}, r"Got \['list', 'dict'\]"),
        ({"fmri": [1, 2], "sc": [1]}, r"needs 2 values in 'sc'.*list of length 1"),
        ({"fmri": [1, 2], "age": [1]}, r"needs 2 values in 'age'"),
        ({"fmri": [1, 2], "age": "ab"}, r"needs 2 values in 'age'.*Got str"),
        ({"fmri": [1, 2], "age": {"a": 1, "b": 2}}, r"needs 2 values in 'age'.*dict"),
        ({"fmri": [1, 2], "ids": ["a"]}, r"needs 2 values in 'ids'"),
        ({"fmri": [1, 2], "ids": ["a", "a"]}, r"Got 'a' twice in ids"),
        ({"fmri": {1: 1, "1": 2}}, r"Got '1' twice in the keys of fmri"),
        ({"fmri": {"a": 1}, "ids": ["a", "b"]}, r"Got none for \['b'\]"),
        ({"fmri": {"a": 1}, "age": [1]}, r"Got a sequence, whose order nothing tells"),
        (
            {"fmri": [1], "ids": ["a"], "participant_id": ["a"]},
            r"needs participants once",
        ),
    ],
)
def test_frames_that_would_mix_people_are_refused(arguments, message):
    with pytest.raises(BrainDataError, match=message):
        make_cohort_frame(**arguments)


def test_none_is_a_class_and_among_numbers_missing(folder):
    write(
        folder,
        "participant_id\tdepression\tscore\tsex\tfmri",
        "01\tNone\t3\tNA\tfmri/s1.npy",
        "02\tmild\tnone\tF\tfmri/s2.npy",
        "03\tN/A\t4\tM\tfmri/s3.npy",
    )
    X = load_cohort(folder)
    assert X["depression"].tolist() == ["None", "mild", None]
    np.testing.assert_array_equal(X["score"], [3, np.nan, 4])
    assert X["sex"].tolist() == [None, "F", "M"]


def test_a_quote_does_not_swallow_the_next_row(folder):
    write(
        folder,
        "participant_id\tnote\tfmri",
        '01\t"left\tfmri/s1.npy',
        '02\tright"\tfmri/s2.npy',
    )
    with pytest.raises(BrainDataError, match=r"in row 1 that goes on in the next row"):
        load_cohort(folder)


def test_two_columns_cannot_have_one_name(folder):
    write(folder, "participant_id\tfmri\tbold", "01\ttask\tfmri/s1.npy")
    with pytest.raises(BrainDataError, match=r"one column 'fmri'. Got 'bold' for it"):
        load_cohort(folder, fmri="bold")


def test_a_name_that_no_file_can_have_is_a_missing_file(folder):
    write(folder, "participant_id\tfmri", f"01\t{'a' * 300}.npy")
    with pytest.raises(BrainDataError, match="needs every file"):
        load_cohort(folder)


def test_regions_in_another_order_are_refused(folder):
    x = np.random.default_rng(0).normal(size=(9, 2))
    (folder / "regions.tsv").write_text("label\nLH\nRH\n")
    for name, columns in (("a", ["LH", "RH"]), ("b", ["RH", "LH"])):
        table = pd.DataFrame(x, columns=columns)
        table.to_csv(folder / "fmri" / f"{name}.tsv", sep="\t", index=False)
    write(folder, "participant_id\tfmri", "01\tfmri/a.tsv", "02\tfmri/s1.npy")
    check_cohort(load_cohort(folder))
    write(folder, "participant_id\tfmri", "01\tfmri/a.tsv", "02\tfmri/b.tsv")
    message = r"'RH' instead of 'LH' as region 0 of 'fmri', first in scan 1 \(02\)"
    with pytest.raises(BrainDataError, match=message):
        check_cohort(load_cohort(folder))
    (folder / "regions.tsv").unlink()
    with pytest.raises(BrainDataError, match=message):
        check_cohort(load_cohort(folder))
    frames = [pd.DataFrame(x, columns=[*names]) for names in ("ab", "ba")]
    with pytest.raises(BrainDataError, match="in the same order in every scan"):
        check_cohort(frames)
