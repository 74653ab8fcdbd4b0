"""Tables of atlases, regions aligned by label, gradients of a matrix."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import requests
from sklearn.utils import Bunch
from skorch.helper import SliceDict

from bsym_sklearn.data import check_cohort, load_cohort, make_cohort_frame
from bsym_sklearn.data.alignment import align_regions
from bsym_sklearn.data.atlases import load_atlas
from bsym_sklearn.exceptions import BrainDataError

SCHAEFER = [
    "7Networks_LH_Vis_1",
    "7Networks_LH_Default_PFC_1",
    "7Networks_RH_Vis_1",
    "7Networks_RH_SalVentAttn_TempOccPar_1",
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise requests.ConnectionError("no network in tests")

    monkeypatch.setattr(requests.Session, "send", refuse)


def make_atlas(values: tuple[int, ...] = (1, 2, 3, 4)) -> nib.Nifti1Image:
    data = np.zeros((len(values) + 1, 2, 2), dtype=np.int16)
    for i, value in enumerate(values):
        data[i] = value
    return nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0]))


def make_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    weights = rng.uniform(1, 2, (3, 3))
    return make_cohort_frame(
        [rng.normal(size=(9, 3)), None],
        [weights + weights.T, weights + weights.T],
        regions=pd.DataFrame({"label": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]}),
        age=[30, 40],
    )


def test_the_regions_of_the_paper_are_50_of_tian_then_400_of_schaefer():
    regions = load_atlas("schaefer+tian")
    assert list(regions) == ["index", "label", "network", "hemisphere", "x", "y", "z"]
    assert regions["index"].tolist() == list(range(1, 451))
    assert regions["label"].is_unique
    # the sizes of networks in the tables of the paper
    assert regions["network"].value_counts().to_dict() == {
        "Default": 91,
        "SomMot": 77,
        "Vis": 61,
        "Cont": 52,
        "Subcortex": 50,
        "SalVentAttn": 47,
        "DorsAttn": 46,
        "Limbic": 26,
    }
    assert (regions["network"][:50] == "Subcortex").all()
    assert (regions["hemisphere"][50:250] == "left").all()
    assert (regions["hemisphere"][250:] == "right").all()
    is_left = regions["hemisphere"] == "left"
    assert (regions["x"][is_left] < 0).mean() == 1
    assert (regions["x"][~is_left] > 0).mean() == 1


def test_the_shipped_table_is_that_of_the_volume(shared):
    name = "Schaefer400_7N_TianS3_MNI152NLin6Asym_2mm.nii.gz"
    table = load_atlas("schaefer+tian")
    read = load_atlas(shared / "data/atlas" / name, labels=table["label"].tolist())
    np.testing.assert_allclose(read[["x", "y", "z"]], table[["x", "y", "z"]], atol=0.01)
    assert read["hemisphere"].tolist() == table["hemisphere"].tolist()
    assert read["network"].tolist()[50:] == table["network"].tolist()[50:]


def test_labels_of_a_lookup_table_are_matched_by_value_not_by_position():
    lut = pd.DataFrame(
        {"index": [0, 4, 3, 2, 1, 9], "name": ["Background", *SCHAEFER[::-1], "lost"]}
    )
    atlas = Bunch(maps=make_atlas(), lut=lut, labels=lut["name"].tolist())
    regions = load_atlas(atlas)
    assert regions["label"].tolist() == SCHAEFER
    assert regions["network"].tolist() == ["Vis", "Default", "Vis", "SalVentAttn"]
    assert regions["hemisphere"].tolist() == ["left", "left", "right", "right"]
    assert regions["x"].tolist() == [0, 2, 4, 6]
    assert list(regions) == ["index", "label", "network", "hemisphere", "x", "y", "z"]


def test_labels_by_position_may_begin_with_the_background():
    atlas = make_atlas((10, 20))
    for labels in (["Background", "a", "b"], ["a", "b"]):
        regions = load_atlas(Bunch(maps=atlas, labels=labels))
        assert regions["label"].tolist() == ["a", "b"]
        assert regions["index"].tolist() == [10, 20]
        assert "network" not in regions


@pytest.mark.parametrize(
    ("label", "hemisphere"),
    [
        ("Precentral_L", "left"),  # AAL
        ("R Frontal pole", "right"),  # MSDL, Destrieux
        ("Left Frontal Pole", "left"),  # Harvard-Oxford, split
        ("HIP-head-m-rh", "right"),  # Tian
        ("LH_Vis_1", "left"),  # XCP-D
        ("Superior parietal lobule LH", "left"),  # DiFuMo
        ("Area_L_R_1", ""),
        ("Brainstem", ""),
    ],
)
def test_labels_tell_hemispheres(label, hemisphere):
    regions = load_atlas(make_atlas((1, 2)), labels=[label, "left other"])
    assert regions["hemisphere"].tolist() == [hemisphere, "left"]


def test_difumo_has_its_yeo_networks_and_msdl_its_own_places():
    maps = nib.Nifti1Image(np.eye(2, dtype=np.float32).reshape(2, 1, 1, 2), np.eye(4))
    difumo = pd.DataFrame(
        {
            "component": [1, 2],
            "difumo_names": ["Lingual gyrus LH", "Fusiform gyrus"],
            "yeo_networks7": ["VisCent", "No network found"],
            "yeo_networks17": ["VisCent", "No network found"],
            "gm": [0.5, 0.4],
        }
    )
    regions = load_atlas(Bunch(maps=maps, labels=difumo))
    assert regions["network"].tolist() == ["VisCent", "No network found"]
    assert regions["network17"].tolist() == ["VisCent", "No network found"]
    assert regions["x"].tolist() == [0, 1]
    msdl = Bunch(
        maps=maps,
        labels=["L Aud", "R Aud"],
        networks=["Aud", "Aud"],
        region_coords=[[-53.28, -8.88, 32.36], [53.47, -6.49, 27.52]],
    )
    regions = load_atlas(msdl)
    assert regions["network"].tolist() == ["Aud", "Aud"]
    assert regions["x"].tolist() == [-53.28, 53.47]


def test_atlases_of_places_have_tables_too():
    from nilearn.datasets import fetch_coords_dosenbach_2010, fetch_coords_power_2011

    power = load_atlas(fetch_coords_power_2011())
    assert power.shape == (264, 5)
    assert power["label"][0] == "region-1"
    dosenbach = load_atlas(fetch_coords_dosenbach_2010())
    assert dosenbach["label"].is_unique
    assert dosenbach["network"].nunique() == 6


def test_equal_labels_get_their_index():
    regions = load_atlas(make_atlas((1, 5, 7)), labels=["a", "b", "a"])
    assert regions["label"].tolist() == ["a 1", "b", "a 7"]


def test_names_read_the_cache_of_nilearn_without_a_network(tmp_path):
    folder = tmp_path / "schaefer_2018"
    folder.mkdir()
    name = "Schaefer2018_100Parcels_7Networks_order"
    rows = [f"{i + 1}\t{label}\t1\t2\t3\t0" for i, label in enumerate(SCHAEFER)]
    (folder / f"{name}.txt").write_text("\n".join(rows))
    nib.save(make_atlas(), folder / f"{name}_FSLMNI152_2mm.nii.gz")
    regions = load_atlas("schaefer100", data_dir=tmp_path)
    assert regions["label"].tolist() == SCHAEFER
    message = (
        r"load_atlas needs the atlas 'msdl' in nilearn's cache, or a network to "
        r"download it\. Got ConnectionError: no network in tests\. Call it once where"
    )
    with pytest.raises(BrainDataError, match=message):
        load_atlas("msdl", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("atlas", "options", "message"),
    [
        (
            "absent.nii.gz",
            {},
            "a readable NIfTI image as an atlas. Got 'absent.nii.gz'",
        ),
        (Bunch(labels=["a"]), {}, "an image under 'maps'. Got ['labels']"),
        (make_atlas(), {"labels": ["a"]}, "Got 1 labels for 4 regions"),
        (make_atlas(), {"labels": pd.DataFrame({"name": ["a"]})}, "a column 'label'"),
        (
            make_atlas(),
            {"labels": pd.DataFrame({"index": [1, 2, 3], "label": list("abc")})},
            "Got none for 1 of 4 values, first 4",
        ),
        (
            nib.Nifti1Image(np.full((2, 2, 2), 0.5), np.eye(4)),
            {},
            "needs whole numbers, one per region and 0 elsewhere",
        ),
    ],
)
def test_unusable_atlases_are_named(atlas, options, message):
    with pytest.raises(BrainDataError, match=re.escape(message)):
        load_atlas(atlas, **options)


def test_regions_are_selected_and_ordered_by_label_in_both_modalities():
    X = make_frame()
    Y = align_regions(X, None, ["c", "a"])
    np.testing.assert_array_equal(Y["fmri"][0], X["fmri"][0][:, [2, 0]])
    np.testing.assert_array_equal(Y["sc"][1], X["sc"][1][np.ix_([2, 0], [2, 0])])
    assert Y["fmri"][1] is None
    assert Y["age"].tolist() == [30, 40]
    assert Y.attrs["regions"].to_numpy().tolist() == [["c", 3.0], ["a", 1.0]]
    assert X.attrs["regions"]["label"].tolist() == ["a", "b", "c"]
    assert check_cohort(Y).n_regions == 2
    back = align_regions(
        align_regions(X, None, ["c", "b", "a"]), None, X.attrs["regions"]
    )
    np.testing.assert_array_equal(back["sc"][0], X["sc"][0])
    pd.testing.assert_frame_equal(back.attrs["regions"], X.attrs["regions"])


def test_every_form_of_scans_keeps_its_form(rng):
    series = rng.normal(size=(2, 5, 3)).astype(np.float32)
    expected = series[:, :, [2, 0]]
    arguments = (["a", "b", "c"], ["c", "a"])
    np.testing.assert_array_equal(align_regions(series, *arguments), expected)
    np.testing.assert_array_equal(
        align_regions(list(series), *arguments)[1], expected[1]
    )
    both = SliceDict(fmri=series, sc=rng.normal(size=(2, 3, 3)))
    aligned = align_regions(both, *arguments)
    np.testing.assert_array_equal(aligned["fmri"], expected)
    assert aligned["sc"].shape == (2, 2, 2)


def test_missing_regions_raise_or_are_nan_and_never_filled():
    X = make_frame()
    message = (
        r"every wanted region in X\. Got none of the label 'd' \(1 of 2 are missing\)"
    )
    with pytest.raises(BrainDataError, match=message):
        align_regions(X, None, ["d", "a"])
    Y = align_regions(X, None, ["d", "a"], missing="nan")
    assert np.isnan(Y["fmri"][0][:, 0]).all()
    np.testing.assert_array_equal(Y["fmri"][0][:, 1], X["fmri"][0][:, 0])
    assert np.isnan(Y["sc"][0]).tolist() == [[True, True], [True, False]]
    assert Y.attrs["regions"]["label"].tolist() == ["d", "a"]
    with pytest.raises(BrainDataError, match="needs finite values"):
        check_cohort(Y)
    with pytest.raises(BrainDataError, match=r"2 of 2 are missing"):
        align_regions(X, None, ["d", "e"], missing="nan")


def test_paths_stay_unopened_when_the_order_is_right(tmp_path: Path):
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "participants.tsv").write_text("fmri\na.npy\n")
    X = load_cohort(tmp_path)
    assert align_regions(X, ["a", "b", "c"], ["a", "b", "c"]) is X
    Y = align_regions(X, ["a", "b", "c"], ["b"])
    assert Y["fmri"][0].tolist() == [[1.0], [4.0]]


def test_unusable_labels_are_named():
    X = make_frame()
    with pytest.raises(
        BrainDataError, match=r"every label once in to_labels\. Got 'a'"
    ):
        align_regions(X, None, ["a", "a"])
    with pytest.raises(BrainDataError, match=r"Got 2 labels for 3 regions in 'fmri'"):
        align_regions(X, ["a", "b"], ["b"])
    X.attrs = {}
    with pytest.raises(
        BrainDataError, match=r"labels of regions in from_labels\. Got Non"
    ):
        align_regions(X, None, ["a"])
    with pytest.raises(ValueError, match="missing must be one of"):
        align_regions(X, ["a", "b", "c"], ["a"], missing="zero")
