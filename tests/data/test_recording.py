"""Files in cells: opened lazily, safely, and refused with their name."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.data import check_cohort
from bsym_sklearn.data.recording import FileRecording, is_missing
from bsym_sklearn.exceptions import BrainDataError

R = 3


@pytest.fixture
def x(rng):
    return rng.normal(size=(8, R)).round(6)


@pytest.fixture
def sc():
    return np.array([[0.0, 2.0, 1.0], [2.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


def read_text(path, text, *, bare="fmri"):
    path.write_text(text)
    cohort = check_cohort([path], bare=bare)
    read = cohort.read_sc if bare == "sc" else cohort.read_fmri
    return read(0, np.float64)


def rows(x, separator):
    return "\n".join(separator.join(map(str, row)) for row in x) + "\n"


def test_npy_of_every_real_dtype_and_order_is_read(tmp_path, x):
    for dtype in ("f2", "f4", "f8", ">f4", "i4"):
        for order in ("C", "F"):
            values = np.asarray(x * 100).astype(dtype, order=order)
            np.save(tmp_path / "a.npy", values)
            read = check_cohort([tmp_path / "a.npy"]).read_fmri(0)
            np.testing.assert_array_equal(read, values.astype("f4"))
            assert read.flags.writeable
            assert read.flags.c_contiguous


def test_a_file_is_not_read_at_the_door(tmp_path, x):
    x[2, 1] = np.nan
    np.save(tmp_path / "a.npy", x)
    cohort = check_cohort([tmp_path / "a.npy"])
    assert cohort.n_timepoints.tolist() == [8]
    with pytest.raises(BrainDataError, match=r"time point 2, region 1, .*a\.npy"):
        cohort.read_fmri(0)


def test_constant_regions_of_a_file_follow_the_policy(tmp_path, x):
    x[:, 2] = 1.0
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(
        BrainDataError, match=r"constant region 2, first in scan 0, file"
    ):
        check_cohort([tmp_path / "a.npy"]).read_fmri(0)
    masked = check_cohort([tmp_path / "a.npy"], constant_regions="mask")
    assert masked.read_fmri(0)[0, 2] == 1.0


def test_asymmetric_file_follows_the_policy(tmp_path, sc):
    sc[0, 1] = 5
    np.save(tmp_path / "a.npy", sc)
    with pytest.raises(BrainDataError, match="needs symmetric matrices"):
        check_cohort([tmp_path / "a.npy"], bare="sc").read_sc(0)
    allowed = check_cohort([tmp_path / "a.npy"], bare="sc", symmetric_sc="allow")
    assert allowed.read_sc(0)[0, 1] == 5


def test_relative_paths_survive_a_change_of_folder(tmp_path, x, monkeypatch):
    np.save(tmp_path / "a.npy", x)
    monkeypatch.chdir(tmp_path)
    cohort = check_cohort(["a.npy"])
    monkeypatch.chdir("/")
    np.testing.assert_allclose(cohort.read_fmri(0), x, rtol=1e-6)


def test_tsv_with_header_like_fmriprep(tmp_path, x):
    text = "Vis_1\tVis_2\tn/a_3\n" + rows(x, "\t")
    np.testing.assert_array_equal(read_text(tmp_path / "a.tsv", text), x)


def test_text_without_header(tmp_path, x):
    np.testing.assert_array_equal(read_text(tmp_path / "a.tsv", rows(x, "\t")), x)
    np.testing.assert_array_equal(read_text(tmp_path / "a.csv", rows(x, ",")), x)


def test_csv_as_pandas_writes_it(tmp_path, x, sc):
    frame = pd.DataFrame(x)
    for keywords in ({}, {"index": False}, {"index": False, "header": False}):
        text = frame.to_csv(**keywords)
        np.testing.assert_array_equal(read_text(tmp_path / "a.csv", text), x)
    named = pd.DataFrame(sc, index=list("abc"), columns=list("abc"))
    for keywords in ({}, {"index_label": "region"}, {"index": False}):
        text = named.to_csv(**keywords)
        read = read_text(tmp_path / "a.csv", text, bare="sc")
        np.testing.assert_array_equal(read, sc)


def test_row_names_without_corner_as_r_writes_them(tmp_path, sc):
    text = "a,b,c\n" + "\n".join(
        f"{name},{','.join(map(str, row))}" for name, row in zip("abc", sc, strict=True)
    )
    np.testing.assert_array_equal(read_text(tmp_path / "a.csv", text, bare="sc"), sc)


def test_integer_first_row_is_data_unless_it_counts(tmp_path):
    data = read_text(tmp_path / "a.csv", "5,7,9\n1,2,4\n3,1,2\n")
    assert data.shape == (3, 3)
    counted = read_text(tmp_path / "a.csv", "1,2,3\n1,2,4\n3,1,2\n")
    assert counted.shape == (2, 3)


def test_afni_1d_has_comments_and_blanks(tmp_path, x):
    text = "# 3dROIstats\n" + rows(x, "   ").replace("\n", "  # t\n", 1)
    np.testing.assert_array_equal(read_text(tmp_path / "a.1D", "  " + text), x)


def test_missing_numbers_in_text_are_an_error(tmp_path):
    for missing in ("n/a", "NaN", ""):
        with pytest.raises(
            BrainDataError, match=r"NaN or infinity at time point 1, reg"
        ):
            read_text(tmp_path / "a.tsv", f"a\tb\n1\t2\n{missing}\t3\n4\t5\n")


def test_text_is_parsed_again_when_the_file_changes(tmp_path, x):
    path = tmp_path / "a.tsv"
    first = read_text(path, rows(x, "\t"))
    second = read_text(path, rows(x[::-1], "\t"))
    np.testing.assert_array_equal(first, second[::-1])


def test_changing_what_was_read_leaves_the_cache_alone(tmp_path, x):
    path = tmp_path / "a.tsv"
    path.write_text(rows(x, "\t"))
    cohort = check_cohort([path])
    cohort.read_fmri(0, np.float64)[:] = 0
    np.testing.assert_array_equal(cohort.read_fmri(0, np.float64), x)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npy", lambda p: p.write_bytes(b"")),
        ("a.npy", lambda p: p.write_bytes(b"not an array")),
        ("a.npy", lambda p: p.write_bytes(pickle.dumps([1, 2, 3]))),
        ("a.npy", lambda p: p.mkdir()),
        ("a.npy", lambda p: None),
        ("a.npy", lambda p: np.save(p, np.array([{"a": 1}], dtype=object))),
        ("a.tsv", lambda p: p.write_text("")),
        ("a.tsv", lambda p: p.write_text("a\tb\n")),
        ("a.tsv", lambda p: p.write_bytes(b"\xff\xfe\x00\x01")),
        ("a.csv", lambda p: p.write_text("1,3\n3,4,5\n")),
        ("a.csv", lambda p: p.write_text("a,b\n1,x\n3,4\n")),
        ("a.1D", lambda p: p.write_text("1 2\n3 x\n")),
        ("a.1D", lambda p: p.write_text("1 2\n3\n")),
        ("a.1D", lambda p: p.write_text("# nothing\n")),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    expected = (
        rf"needs readable files in 'fmri'. Got '.*{name}' \(.*\), first in scan 0"
    )
    with pytest.raises(BrainDataError, match=f"(?s){expected}"):
        check_cohort([path])


def test_truncated_npy_is_refused_at_the_door(tmp_path, x):
    path = tmp_path / "a.npy"
    np.save(path, x)
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(BrainDataError, match=r"needs readable files.*a\.npy"):
        check_cohort([path])


def test_npz_content_is_refused(tmp_path, x):
    np.savez(tmp_path / "a.npz", x=x)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(BrainDataError, match=r"an .npz archive, not one array"):
        check_cohort([tmp_path / "a.npy"])


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a", "a.txt"])
def test_unknown_suffixes_are_refused(tmp_path, name):
    expected = rf"that end in \.npy, \.tsv, \.csv, \.1D. Got '{name}', first in scan 0"
    with pytest.raises(BrainDataError, match=expected):
        check_cohort([tmp_path / name])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_images_are_refused_with_the_masker_named(tmp_path, name):
    with pytest.raises(BrainDataError, match="with `parcellate`"):
        check_cohort([tmp_path / name])


def test_files_that_are_not_2d_or_not_real_are_refused_at_the_door(tmp_path, x):
    np.save(tmp_path / "a.npy", x[None])
    with pytest.raises(BrainDataError, match=r"2-D array.*\(1, 8, 3\).*a\.npy"):
        check_cohort([tmp_path / "a.npy"])
    np.save(tmp_path / "a.npy", x.astype(complex))
    with pytest.raises(BrainDataError, match="Got dtype complex128"):
        check_cohort([tmp_path / "a.npy"])


def test_region_counts_of_files_are_compared_at_the_door(tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", x[:, :2])
    with pytest.raises(BrainDataError, match="Got 2 regions in 'fmri' and 3"):
        check_cohort([tmp_path / "a.npy", x, tmp_path / "b.npy"])


def test_file_that_changes_shape_or_vanishes_later_is_named(tmp_path, x):
    path = tmp_path / "a.npy"
    np.save(path, x)
    cohort = check_cohort([path])
    np.save(path, x[:5])
    with pytest.raises(BrainDataError, match=r"\(5, 3\) instead of \(8, 3\)"):
        cohort.read_fmri(0)
    path.unlink()
    with pytest.raises(BrainDataError, match="needs readable files"):
        cohort.read_fmri(0)


def test_recording_knows_its_shape_and_label(tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    recording = check_cohort(pd.Series([tmp_path / "a.npy"], index=["p1"])).fmri[0]
    assert isinstance(recording, FileRecording)
    assert recording.shape == (8, R)
    assert recording.label == "scan 0 (p1)"
    np.testing.assert_array_equal(recording.read(np.float64), x)


def test_zero_and_false_are_not_missing():
    assert not is_missing(0)
    assert not is_missing(False)
    assert not is_missing(10**400)
    assert not is_missing(np.zeros((2, 2)))
    assert is_missing(np.float32("nan"))


def test_row_names_of_r_are_no_region(tmp_path, x):
    lines = "".join(f"{i + 1},{','.join(map(str, row))}\n" for i, row in enumerate(x))
    read = read_text(tmp_path / "a.csv", "A,B,C\n" + lines)
    np.testing.assert_array_equal(read, x)


def test_numbers_of_an_atlas_above_the_columns_are_no_time_point(tmp_path, x):
    for header in ("0,1,3", "2001,2002,2101"):
        read = read_text(tmp_path / "a.csv", f"{header}\n" + rows(x, ","))
        np.testing.assert_array_equal(read, x)
    whole = np.arange(12).reshape(4, 3) ** 2  # below too: all are data
    read = read_text(tmp_path / "b.csv", rows(whole, ","))
    np.testing.assert_array_equal(read, whole)


@pytest.mark.parametrize("header", ["time,A,B,C\n", "Unnamed: 0,A,B,C\n", ""])
@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_counts_the_rows_is_refused(tmp_path, x, header, first):
    lines = "".join(
        f"{i + first},{','.join(map(str, row))}\n" for i, row in enumerate(x)
    )
    with pytest.raises(BrainDataError, match="first column counts the rows"):
        read_text(tmp_path / "a.csv", header + lines)
