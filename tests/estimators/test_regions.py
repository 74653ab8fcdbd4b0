"""What the embedder says of regions: one stream of it, or without any scan."""

from __future__ import annotations

import numpy as np
import pytest

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.data import make_cohort

TINY = {"dim": 8, "depth": 1, "n_heads": 2, "max_epochs": 1, "random_state": 0}


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_scans=8, n_regions=5, n_timepoints=40).data


@pytest.fixture(scope="module")
def model(cohort) -> BrainSymphonyEmbedder:
    return BrainSymphonyEmbedder(**TINY).fit(cohort)


def test_streams_embed_regions_of_what_they_read(cohort, model) -> None:
    lacking = cohort.copy()
    lacking.loc[2, "sc"], lacking.loc[3, "fmri"] = None, None
    spatial = model.transform_regions(lacking, "spatial")
    structural = model.transform_regions(lacking, "structural")
    assert spatial.shape == structural.shape == (8, 5, 8)
    absent = np.arange(8)
    np.testing.assert_array_equal(np.isnan(spatial).all((1, 2)), absent == 3)
    np.testing.assert_array_equal(np.isnan(structural).all((1, 2)), absent == 2)
    whole = model.transform_regions(cohort, "spatial")
    np.testing.assert_allclose(spatial[:3], whole[:3], rtol=1e-5, atol=1e-6)
    fused = model.transform_regions(cohort.iloc[:1])
    assert not np.allclose(fused, spatial[:1])


def test_a_stream_that_is_not_there_is_refused(cohort) -> None:
    model = BrainSymphonyEmbedder(**TINY, modalities="sc").fit(cohort)
    with pytest.raises(ValueError, match="stream"):
        model.transform_regions(cohort, "spatial")
    with pytest.raises(ValueError, match="region_positions needs a model of 'fmri'"):
        model.region_positions()


def test_positions_are_those_of_the_model(model) -> None:
    table = model.backbone_.fmri.spatial.positions.table
    np.testing.assert_array_equal(model.region_positions(), table.detach().numpy())
    model.region_positions()[:] = 0  # a copy
    assert table.any()
