"""The real cohort folders beside the project, with the traps their READMEs name."""

from __future__ import annotations

import numpy as np
import pytest

from bsym_sklearn.data import (
    ConnectomeScaler,
    RegionScaler,
    check_cohort,
    find_constant_regions,
    load_cohort,
)
from bsym_sklearn.exceptions import BrainDataError

# name: scans, regions, shortest, longest, modalities, scans with constant regions
COHORTS = {
    "abide_dev": (566, 110, 78, 316, ("fmri",), 10),
    "hcp21": (21, 70, 1200, 1200, ("fmri", "sc"), 0),
    "multitask_dev": (80, 157, 120, 121, ("fmri",), 0),
    "psilocybin": (36, 90, 100, 100, ("fmri",), 0),
    "rest3site": (119, 122, 155, 290, ("fmri",), 8),
    "schaefer419": (92, 419, 234, 234, ("fmri",), 0),
    "tumor": (63, 68, 180, 180, ("fmri", "sc"), 0),
}


@pytest.mark.parametrize("name", COHORTS)
def test_folder_is_what_its_readme_says(shared, name):
    n_scans, n_regions, shortest, longest, modalities, n_flawed = COHORTS[name]
    folder = shared / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs {name} in ../shared/data")
    cohort = check_cohort(load_cohort(folder), constant_regions="mask")
    assert len(cohort) == n_scans
    assert cohort.n_regions == n_regions
    assert cohort.n_timepoints.min() == shortest
    assert cohort.n_timepoints.max() == longest
    assert cohort.modalities == modalities
    assert cohort.covariates["participant_id"].map(type).eq(str).all()
    flawed = [
        i for i in range(n_scans) if find_constant_regions(cohort.read_fmri(i)).any()
    ]
    assert len(flawed) == n_flawed
    strict = check_cohort(load_cohort(folder))
    for i in flawed:
        with pytest.raises(BrainDataError, match=rf"constant region.*scan {i} \("):
            strict.read_fmri(i)
    if "sc" in modalities:
        assert cohort.read_sc(0).shape == (n_regions, n_regions)


@pytest.mark.parametrize("name", ["hcp21", "tumor"])
def test_counts_and_shares_of_streamlines_scale_alike(shared, name):
    folder = shared / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs {name} in ../shared/data")
    cohort = check_cohort(load_cohort(folder)).take(range(10))
    scaler = ConnectomeScaler().fit(cohort)
    new = np.stack([scaler.scale(cohort.read_sc(i, None)) for i in range(10)])
    raw = np.stack([cohort.read_sc(i) for i in range(10)])
    off_diagonal = ~np.eye(cohort.n_regions, dtype=bool)
    np.testing.assert_array_equal(
        (new > 0)[:, off_diagonal], (raw > 0)[:, off_diagonal]
    )
    assert not new[:, ~off_diagonal].any()
    np.testing.assert_allclose(np.mean(new[new > 0] ** 2), 1, rtol=1e-4)
    assert 2 < new.max() < 8


def test_flawed_regions_become_zero_when_masked(shared):
    folder = shared / "data" / "rest3site"
    if not folder.is_dir():
        pytest.skip("needs rest3site in ../shared/data")
    data = load_cohort(folder).iloc[:4]
    with pytest.raises(BrainDataError, match=r"region 10, first in scan 0 \(boch"):
        RegionScaler().fit_transform(data)
    new = RegionScaler(constant_regions="mask").fit_transform(data)
    assert not new["fmri"].iloc[0][:, 10].any()
    assert new.attrs["regions"].shape == (122, 1)
