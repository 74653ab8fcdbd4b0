"""fetch_abide and fetch_development_fmri, from caches in nilearn's layout, offline."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import requests

from bsym_sklearn.data import check_cohort, load_cohort
from bsym_sklearn.data.fetchers import fetch_abide, fetch_development_fmri
from bsym_sklearn.exceptions import BrainDataError

SITES = ("PITT", "UM_1", "LEUVEN_2", "NOWHERE")
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
N_VOLUMES = 30
CONFOUNDS = (
    *(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"),
    "framewise_displacement",
    *(f"a_comp_cor_{i:02d}" for i in range(6)),
    *("csf", "white_matter", "global_signal"),
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise requests.ConnectionError("no network in tests")

    monkeypatch.setattr(requests.Session, "send", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_abide(root: Path, derivative: str = "rois_cc200") -> list[np.ndarray]:
    """Write what nilearn keeps of ABIDE: a table, and one file per participant."""
    rng = np.random.default_rng(0)
    folder = root / "ABIDE_pcp"
    series_folder = folder / "cpac" / "nofilt_noglobal"
    series_folder.mkdir(parents=True)
    ids = [f"{site.title()}_005000{i}" for i, site in enumerate(SITES)]
    table = pd.DataFrame(
        {
            "Unnamed: 0": range(4),
            "SUB_ID": [50000 + i for i in range(4)],
            "SITE_ID": SITES,
            "FILE_ID": [*ids[:3], "no_filename"],
            "DX_GROUP": [1, 2, 2, 1],
            "AGE_AT_SCAN": [10.5, 20.0, 30.25, 40.0],
            "SEX": [1, 2, 1, 1],
            "func_mean_fd": [0.1, -9999, 0.3, 0.4],
            "qc_rater_1": ["OK", "OK", "fail", "OK"],
            "qc_anat_rater_2": ["OK", "maybe", "OK", "OK"],
            "qc_func_rater_2": "OK",
            "qc_anat_rater_3": "OK",
            "qc_func_rater_3": "OK",
            "qc_notes_rater_3": ["fine", "a, b", "", ""],
        }
    )
    table.to_csv(folder / "Phenotypic_V1_0b_preprocessed1.csv")
    series = [rng.normal(size=(20, 3)) for _ in range(3)]
    for name, values in zip(ids, series, strict=False):
        path = series_folder / f"{name}_{derivative}.1D"
        np.savetxt(
            path, values, delimiter="\t", header="2001\t#2002\t#2101", comments="#"
        )
    return series


def write_development(root: Path) -> list[np.ndarray]:
    """Write what nilearn keeps of the dataset: a table, images and confounds."""
    rng = np.random.default_rng(0)
    folder = root / "development_fmri"
    folder.mkdir(parents=True)
    ids = ["sub-pixar001", "sub-pixar123"]  # of nilearn's own list
    pd.DataFrame(
        {
            "participant_id": ids,
            "Age": [4.77, 27.0],
            "AgeGroup": ["4yo", "Adult"],
            "Child_Adult": ["child", "adult"],
            "Gender": ["M", "F"],
            "Handedness": ["R", "L"],
            "FB_Composite": [0.5, np.nan],
        }
    ).to_csv(folder / "participants.tsv", sep="\t", index=False)
    images = []
    for name in ids:
        data = 100 + rng.normal(size=(4, 4, 4, N_VOLUMES)).astype(np.float32)
        space = "space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
        nib.save(nib.Nifti1Image(data, AFFINE), folder / f"{name}_task-pixar_{space}")
        confounds = pd.DataFrame({c: rng.normal(size=N_VOLUMES) for c in CONFOUNDS})
        confounds["framewise_displacement"] = [np.nan, *[0.2] * (N_VOLUMES - 1)]
        path = folder / f"{name}_task-pixar_desc-confounds_regressors.tsv"
        confounds.to_csv(path, sep="\t", index=False, na_rep="n/a")
        images.append(data)
    return images


def make_atlas() -> nib.Nifti1Image:
    data = np.repeat([1, 1, 2, 2], 16).reshape(4, 4, 4).astype(np.int16)
    return nib.Nifti1Image(data, AFFINE)


def test_abide_is_a_cohort_with_diagnosis_and_phenotype(tmp_path):
    series = write_abide(tmp_path)
    abide = fetch_abide(data_dir=tmp_path, verbose=0)
    data = abide.data
    assert data["participant_id"].tolist() == ["Pitt_0050000", "Um_1_0050001"]
    assert data["site"].tolist() == ["PITT", "UM_1"]
    assert data["dx"].tolist() == ["autism", "control"]
    assert abide.target.tolist() == ["autism", "control"]
    assert data["age"].tolist() == [10.5, 20.0]
    assert data["sex"].tolist() == ["M", "F"]
    assert data["t_r"].tolist() == [1.5, 2.0]
    assert data["mean_fd"][0] == 0.1
    assert np.isnan(data["mean_fd"][1])
    assert data["fmri"][0].dtype == np.float32
    np.testing.assert_allclose(data["fmri"][1], series[1], rtol=1e-6)
    assert abide.regions["label"].tolist() == ["cc200-2001", "cc200-2002", "cc200-2101"]
    assert data.attrs["regions"].equals(abide.regions)
    assert "Autism Brain Imaging" in abide.DESCR
    assert check_cohort(data).n_regions == 3


def test_abide_takes_who_failed_the_checks_if_asked_and_the_first_few(tmp_path):
    write_abide(tmp_path)
    everyone = fetch_abide(quality_checked=False, data_dir=tmp_path, verbose=0).data
    assert everyone["t_r"].tolist() == [1.5, 2.0, 1.667]
    first = fetch_abide(n_subjects=1, data_dir=tmp_path, verbose=0)
    assert len(first.data) == len(first.target) == 1


def test_regions_of_abide_are_named_by_their_numbers(tmp_path):
    write_abide(tmp_path, "rois_aal")
    table = pd.DataFrame(
        {
            "index": [2101, 2001, 2002, 9],
            "label": ["Frontal_Sup_L", "Precentral_L", "Precentral_R", "other"],
            "x": [1.0, 2.0, 3.0, 4.0],
        }
    )
    abide = fetch_abide(atlas="aal", regions=table, data_dir=tmp_path, verbose=0)
    labels = ["Precentral_L", "Precentral_R", "Frontal_Sup_L"]
    assert abide.regions["label"].tolist() == labels
    assert abide.data.attrs["regions"]["x"].tolist() == [2.0, 3.0, 1.0]
    with pytest.raises(
        BrainDataError, match=r"Got none for the numbers \[2002\] \(1 of 3"
    ):
        fetch_abide(atlas="aal", regions=table.drop(2), data_dir=tmp_path, verbose=0)


def test_files_without_numbers_are_counted(tmp_path):
    write_abide(tmp_path)
    for path in tmp_path.rglob("*.1D"):
        path.write_text(re.sub("#.*\n", "", path.read_text()))
    regions = fetch_abide(data_dir=tmp_path, verbose=0).regions
    assert regions["label"].tolist() == ["cc200-1", "cc200-2", "cc200-3"]


def test_without_cache_and_network_abide_says_what_it_needs(tmp_path):
    message = (
        r"fetch_abide needs the files of ABIDE in nilearn's cache, or a network to "
        r"download it\. Got ConnectionError: no network in tests\. Call it once where"
    )
    with pytest.raises(BrainDataError, match=message):
        fetch_abide(data_dir=tmp_path, verbose=0)
    write_abide(tmp_path / "partial")
    next((tmp_path / "partial").rglob("Um_1*.1D")).unlink()
    with pytest.raises(BrainDataError, match=message):
        fetch_abide(data_dir=tmp_path / "partial", verbose=0)


def test_unknown_options_of_abide_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"atlas must be one of \('aal', .*Got 'basc'"):
        fetch_abide(atlas="basc")
    with pytest.raises(ValueError, match=r"pipeline must be one of"):
        fetch_abide(pipeline="fmriprep")
    with pytest.raises(ValueError, match=r"n_subjects must be a whole number"):
        fetch_abide(n_subjects=0)


def test_development_is_a_cohort_by_region(tmp_path):
    images = write_development(tmp_path)
    movie = fetch_development_fmri(
        make_atlas(),
        labels=["a", "b"],
        confounds=False,
        detrend=False,
        data_dir=tmp_path,
        verbose=0,
    )
    data = movie.data.set_index("participant_id")
    assert data.loc["sub-pixar001", "group"] == "child"
    assert movie.target.tolist() == movie.data["group"].tolist() == ["adult", "child"]
    assert data["age"].to_dict() == {"sub-pixar123": 27.0, "sub-pixar001": 4.77}
    assert data["sex"].tolist() == ["F", "M"]
    assert data["t_r"].tolist() == [2.0, 2.0]
    assert data["mean_fd"].round(6).tolist() == [0.2, 0.2]
    expected = images[0][:2].mean(axis=(0, 1, 2))
    series = data.loc["sub-pixar001", "fmri"]
    np.testing.assert_allclose(series[:, 0], expected, rtol=1e-5)
    assert movie.regions["label"].tolist() == ["a", "b"]
    assert check_cohort(movie.data).n_regions == 2


def test_development_removes_confounds_and_writes_a_cohort_folder(tmp_path):
    write_development(tmp_path)
    arguments = {"data_dir": tmp_path, "verbose": 0, "age_group": "child"}
    movie = fetch_development_fmri(
        make_atlas(), out_dir=tmp_path / "cohort", **arguments
    )
    assert movie.data["participant_id"].tolist() == ["sub-pixar001"]
    loaded = load_cohort(tmp_path / "cohort")
    assert loaded["fmri"].tolist() == movie.data["fmri"].tolist()
    assert loaded["group"].tolist() == ["child"]
    path = next(tmp_path.rglob("sub-pixar001*confounds_regressors.tsv"))
    motion = pd.read_csv(path, sep="\t")["trans_x"]
    r = np.corrcoef(np.load(loaded["fmri"][0]).T, motion)[-1, :-1]
    assert np.abs(r).max() < 1e-4


def test_without_cache_and_network_development_says_what_it_needs(tmp_path):
    message = r"fetch_development_fmri needs its files in nilearn's cache, or a network"
    with pytest.raises(BrainDataError, match=message):
        fetch_development_fmri(make_atlas(), data_dir=tmp_path, verbose=0)
    write_development(tmp_path / "no_atlas")
    with pytest.raises(
        BrainDataError, match=r"development_fmri needs the atlas 'msdl'"
    ):
        fetch_development_fmri(data_dir=tmp_path / "no_atlas", verbose=0)
    with pytest.raises(ValueError, match=r"age_group must be one of"):
        fetch_development_fmri(make_atlas(), age_group="adults")
