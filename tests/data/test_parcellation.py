"""parcellate, on small images with known values, and on a real one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.signal import clean

from bsym_sklearn.data import check_cohort, load_cohort
from bsym_sklearn.data import parcellation_folder as folders
from bsym_sklearn.data.extraction import Cleaning
from bsym_sklearn.data.parcellation import _Work, parcellate
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
N_VOLUMES = 40
MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
NAME = "sub-{:02d}_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"


def make_atlas(values: tuple[int, ...] = (3, 7, 20)) -> nib.Nifti1Image:
    """Return an atlas whose first axis is cut into regions of one slice each."""
    data = np.zeros((len(values) + 1, 4, 4), dtype=np.int16)
    for i, value in enumerate(values):
        data[i] = value
    return nib.Nifti1Image(data, AFFINE)


def make_image(seed: int, t_r: float | None = 2.0) -> nib.Nifti1Image:
    rng = np.random.default_rng(seed)
    data = 100 + rng.normal(size=(4, 4, 4, N_VOLUMES))
    image = nib.Nifti1Image(data.astype(np.float32), AFFINE)
    if t_r is not None:
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((4, 4, 4, t_r))
    return image


def write_images(folder: Path, n: int = 3) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / NAME.format(i + 1) for i in range(n)]
    for i, path in enumerate(paths):
        nib.save(make_image(i), path)
    return paths


def write_fmriprep(image: Path, seed: int = 0, n_censored: int = 0) -> pd.DataFrame:
    """Write the table that fMRIPrep writes beside an image."""
    rng = np.random.default_rng(seed)
    names = [*MOTION, "csf", "white_matter"]
    table = pd.DataFrame({name: rng.normal(size=N_VOLUMES) for name in names})
    for name in names:
        table[f"{name}_derivative1"] = table[name].diff()
        table[f"{name}_power2"] = table[name] ** 2
        table[f"{name}_derivative1_power2"] = table[f"{name}_derivative1"] ** 2
    table["cosine00"] = np.cos(np.linspace(0, np.pi, N_VOLUMES))
    table["framewise_displacement"] = np.r_[np.nan, np.full(N_VOLUMES - 1, 0.1)]
    table["std_dvars"] = np.r_[np.nan, np.ones(N_VOLUMES - 1)]
    table.loc[10 : 9 + n_censored, "framewise_displacement"] = 2.0
    source = image.name.split("_space")[0]
    path = image.with_name(f"{source}_desc-confounds_timeseries.tsv")
    table.to_csv(path, sep="\t", na_rep="n/a", index=False)
    path.with_suffix(".json").write_text("{}")
    return table


def region_means(image: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj)[:3].mean(axis=(1, 2)).T


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the label of each scan that is read."""
    seen: list[str] = []
    read: Callable[..., np.ndarray] = _Work.read

    def counting(self, scan):
        seen.append(scan.label)
        return read(self, scan)

    monkeypatch.setattr(_Work, "read", counting)
    return seen


def test_a_region_is_the_mean_of_its_voxels_in_the_order_of_values():
    image = make_image(0)
    X = parcellate([image], make_atlas(), detrend=False, participants=["a"])
    np.testing.assert_allclose(X["fmri"][0], region_means(image), rtol=1e-5)
    assert X["fmri"][0].dtype == np.float32
    assert X["t_r"].tolist() == [2.0]
    regions = X.attrs["regions"]
    assert regions["index"].tolist() == [3, 7, 20]
    assert regions["label"].tolist() == ["region-3", "region-7", "region-20"]
    places = regions[["x", "y", "z"]].to_numpy().tolist()
    assert places == [[0, 6, 6], [4, 6, 6], [8, 6, 6]]
    assert check_cohort(X).n_regions == 3


def test_maps_of_a_4d_atlas_give_what_the_regions_give():
    image, atlas = make_image(0), make_atlas()
    maps = np.stack([np.asarray(atlas.dataobj) == v for v in (3, 7, 20)], axis=-1)
    soft = nib.Nifti1Image(maps.astype(np.float32), AFFINE)
    X = parcellate([image], soft, detrend=False, labels=["a", "b", "c"])
    np.testing.assert_allclose(X["fmri"][0], region_means(image), rtol=1e-4)
    assert X.attrs["regions"]["label"].tolist() == ["a", "b", "c"]
    assert X.attrs["regions"]["x"].tolist() == [0, 4, 8]


def test_names_of_files_tell_participants_and_a_column_keeps_its_covariates(tmp_path):
    paths = write_images(tmp_path)
    X = parcellate(paths, make_atlas())
    assert list(X) == ["participant_id", "task", "t_r", "fmri"]
    assert X["participant_id"].tolist() == ["sub-01", "sub-02", "sub-03"]
    table = pd.DataFrame({"bold": paths, "age": [3, 4, 5]}, index=["x", "y", "z"])
    Y = parcellate(table, make_atlas(), column="bold")
    assert list(Y) == ["age", "t_r", "fmri"]
    assert Y.index.tolist() == ["x", "y", "z"]
    for one, other in zip(X["fmri"], Y["fmri"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_processes_give_what_one_gives_and_their_errors_arrive(tmp_path):
    paths = write_images(tmp_path / "bold")
    X = parcellate(paths, make_atlas())
    Y = parcellate(paths, make_atlas(), n_jobs=2, out_dir=tmp_path / "cohort")
    for series, path in zip(X["fmri"], Y["fmri"], strict=True):
        np.testing.assert_array_equal(np.load(path), series)
    with pytest.raises(BrainDataError, match=r"Got 5 rows for 40 volumes"):
        parcellate(paths, make_atlas(), confounds=[np.ones((5, 1))] * 3, n_jobs=2)


def test_t_r_is_given_or_of_the_column_or_the_sidecar_or_the_header(tmp_path):
    paths = write_images(tmp_path)
    paths[1].with_suffix("").with_suffix(".json").write_text('{"RepetitionTime": 0.8}')
    atlas = make_atlas()
    assert parcellate(paths, atlas)["t_r"].tolist() == [2.0, 0.8, 2.0]
    assert parcellate(paths, atlas, t_r=3)["t_r"].tolist() == [3.0] * 3
    table = pd.DataFrame({"fmri": paths, "t_r": [1.5, 1.5, np.nan]})
    assert parcellate(table, atlas)["t_r"].tolist() == [1.5, 1.5, 2.0]
    milliseconds = make_image(0, t_r=2500)
    milliseconds.header.set_xyzt_units("mm", "msec")
    unknown = make_image(0, t_r=None)
    times = parcellate([milliseconds, unknown], atlas)["t_r"]
    assert times[0] == 2.5
    assert np.isnan(times[1])


def test_a_filter_needs_t_r_and_is_nilearns():
    with pytest.raises(BrainDataError, match=r"volumes to filter\. Got none .* scan 0"):
        parcellate([make_image(0, t_r=None)], make_atlas(), low_pass=0.1)
    image = make_image(0)
    X = parcellate([image], make_atlas(), low_pass=0.1, high_pass=0.01)
    expected = clean(
        region_means(image).astype(np.float64),
        standardize=None,
        low_pass=0.1,
        high_pass=0.01,
        t_r=2.0,
    )
    np.testing.assert_allclose(X["fmri"][0], expected, atol=1e-4)


def test_given_confounds_are_regressed_out_and_volumes_left_out(tmp_path):
    image = make_image(0)
    confound = np.random.default_rng(9).normal(size=N_VOLUMES)
    data = np.asarray(image.dataobj) + 5 * confound
    image = nib.Nifti1Image(data.astype(np.float32), AFFINE, image.header)
    table = pd.DataFrame({"noise": confound})
    path = tmp_path / "confounds.tsv"
    table.to_csv(path, sep="\t", index=False)
    X = parcellate([image] * 3, make_atlas(), confounds=[table, str(path), None])
    assert np.abs(np.corrcoef(X["fmri"][0].T, confound)[-1, :-1]).max() < 1e-5
    np.testing.assert_allclose(X["fmri"][0], X["fmri"][1], atol=1e-5)
    assert np.corrcoef(X["fmri"][2].T, confound)[-1, :-1].min() > 0.9
    keep = np.arange(N_VOLUMES) > 4
    Y = parcellate([image], make_atlas(), sample_masks=[keep])
    assert Y["fmri"][0].shape == (N_VOLUMES - 5, 3)


def test_fmriprep_confounds_are_found_and_scrubbing_leaves_volumes_out(tmp_path):
    paths = write_images(tmp_path, n=2)
    table = write_fmriprep(paths[0])
    write_fmriprep(paths[1], seed=1, n_censored=7)
    X = parcellate(paths, make_atlas(), confounds="fmriprep")
    assert X["mean_fd"].round(3).tolist() == [0.1, 0.441]
    for name in (*MOTION, "csf", "cosine00"):
        r = np.corrcoef(X["fmri"][0].T, table[name])[-1, :-1]
        assert np.abs(r).max() < 1e-4
    Y = parcellate(
        paths[1:], make_atlas(), confounds="fmriprep", denoise_strategy="scrubbing"
    )
    # seven volumes, and the segments of fewer than five volumes between them
    assert 2 < len(Y["fmri"][0]) <= N_VOLUMES - 7


def test_unusable_confounds_are_named(tmp_path):
    paths, atlas = write_images(tmp_path, n=1), make_atlas()
    with pytest.raises(BrainDataError, match=r"fMRIPrep writes beside .*scan 0 \(sub-"):
        parcellate(paths, atlas, confounds="fmriprep")
    with pytest.raises(BrainDataError, match=r"needs paths with confounds='fmriprep'"):
        parcellate([make_image(0)], atlas, confounds="fmriprep")
    with pytest.raises(BrainDataError, match=r"Got 5 rows for 40 volumes"):
        parcellate(paths, atlas, confounds=[np.ones((5, 1))])
    with pytest.raises(BrainDataError, match=r"Got 60 for 40 volumes, which would"):
        parcellate(paths, atlas, confounds=[np.ones((N_VOLUMES, 60))])
    gap = pd.DataFrame({"fd": np.r_[np.nan, np.ones(N_VOLUMES - 2), np.nan]})
    with pytest.raises(BrainDataError, match=r"gaps in column 'fd', first in scan 0"):
        parcellate(paths, atlas, confounds=[gap])
    with pytest.raises(BrainDataError, match=r"one entry of confounds per image"):
        parcellate(paths, atlas, confounds=[None, None])
    with pytest.raises(ValueError, match=r"confounds must be one of \('fmriprep',\)"):
        parcellate(paths, atlas, confounds="fsl")
    with pytest.raises(BrainDataError, match=r"at least two volumes to keep\. Got 1"):
        parcellate(paths, atlas, sample_masks=[[3]])


def test_a_region_without_voxels_is_named_never_dropped():
    fine = np.zeros((8, 8, 8), dtype=np.int16)
    fine[:4], fine[4:], fine[1, 1, 1] = 1, 2, 5  # one voxel of 2 mm between those of 4
    atlas = nib.Nifti1Image(fine, np.diag([2.0, 2.0, 2.0, 1.0]))
    images = [make_image(0), make_image(1)]
    message = (
        r"parcellate needs voxels of every region in every scan\. Got none of "
        r"'region-5' \(1 of 3 regions\), first in scan 0 \(a\)\. Set "
        r"resample_to='atlas', if voxels of 4 x 4 x 4 mm are too large for it; or keep "
    )
    with pytest.raises(BrainDataError, match=message):
        parcellate(images, atlas, participants=["a", "b"])
    X = parcellate(images, atlas, resample_to="atlas")
    assert all((cell.std(axis=0) > 0).all() for cell in X["fmri"])
    Y = parcellate(images, atlas, constant_regions="mask")
    assert (Y["fmri"][0][:, 2] == 0).all()
    assert (Y["fmri"][0][:, :2].std(axis=0) > 0).all()
    assert check_cohort(Y, constant_regions="mask").n_regions == 3


def test_a_region_without_signal_is_named():
    data = np.array(make_image(0).dataobj)
    data[1] = 0
    dark = nib.Nifti1Image(data, AFFINE)
    message = (
        r"needs signal of every region .* Got none of 'region-7' \(1 of 3 regions\), "
        r"first in scan 1\. Leave the region out of the atlas or the scan out"
    )
    for detrend in (True, False):
        with pytest.raises(BrainDataError, match=message):
            parcellate([make_image(0), dark], make_atlas(), detrend=detrend)


def test_a_cohort_folder_is_written_and_a_second_call_resumes(tmp_path, monkeypatch):
    paths = write_images(tmp_path / "bold")
    memory = parcellate(paths, make_atlas())
    seen = count_reads(monkeypatch)
    X = parcellate(paths[:2], make_atlas(), out_dir=tmp_path / "cohort")
    assert len(seen) == 2
    X = parcellate(paths, make_atlas(), out_dir=tmp_path / "cohort")
    assert seen[2:] == ["scan 2 (sub-03)"]
    loaded = load_cohort(tmp_path / "cohort")
    assert loaded["fmri"].tolist() == X["fmri"].tolist()
    assert loaded["participant_id"].tolist() == memory["participant_id"].tolist()
    labels = loaded.attrs["regions"]["label"].tolist()
    assert labels == memory.attrs["regions"]["label"].tolist()
    cohort = check_cohort(loaded)
    for i, series in enumerate(memory["fmri"]):
        np.testing.assert_array_equal(cohort.read_fmri(i), series)
    assert not list((tmp_path / "cohort").rglob(".*"))


def test_changed_images_and_damaged_scans_are_made_again(tmp_path, monkeypatch):
    paths, out = write_images(tmp_path / "bold"), tmp_path / "cohort"
    X = parcellate(paths, make_atlas(), out_dir=out)
    seen = count_reads(monkeypatch)
    nib.save(make_image(7), paths[0])
    Path(X["fmri"][1]).write_bytes(Path(X["fmri"][1]).read_bytes()[:200])
    Path(X["fmri"][2]).with_suffix(".json").unlink()
    parcellate(paths, make_atlas(), out_dir=out)
    assert len(seen) == 3
    fresh = parcellate(paths, make_atlas())
    for path, series in zip(X["fmri"], fresh["fmri"], strict=True):
        np.testing.assert_array_equal(np.load(path), series)


def test_a_call_that_fails_keeps_what_is_finished(tmp_path, monkeypatch):
    paths, out = write_images(tmp_path / "bold"), tmp_path / "cohort"
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        BrainDataError, match=r"can be read and cleaned.*scan 2 \(sub-03"
    ):
        parcellate(paths, make_atlas(), out_dir=out)
    assert not (out / "participants.tsv").exists()
    seen = count_reads(monkeypatch)
    paths[2].write_bytes(whole)
    parcellate(paths, make_atlas(), out_dir=out)
    assert seen == ["scan 2 (sub-03)"]


def test_a_scan_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        parcellate([make_image(0)], make_atlas(), out_dir=tmp_path / "c")
    assert not list((tmp_path / "c" / "fmri").iterdir())


def test_a_folder_keeps_its_settings(tmp_path):
    images, out = [make_image(0)], tmp_path / "cohort"
    parcellate(images, make_atlas(), out_dir=out)
    message = r"Got smoothing_fwhm=6 instead of None\. Choose a new out_dir"
    with pytest.raises(BrainDataError, match=message):
        parcellate(images, make_atlas(), smoothing_fwhm=6, out_dir=out)
    with pytest.raises(BrainDataError, match=r"Got atlas='\w+' instead of '\w+'"):
        parcellate(images, make_atlas((3, 7, 21)), out_dir=out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(BrainDataError, match="which holds other files"):
        parcellate(images, make_atlas(), out_dir=tmp_path / "other")
    (out / "parcellation.json").write_text("{")
    with pytest.raises(BrainDataError, match=r"Got a file that cannot be read"):
        parcellate(images, make_atlas(), out_dir=out)


def test_settings_of_a_folder_name_every_cleaning_parameter(tmp_path):
    parcellate([make_image(0)], make_atlas(), out_dir=tmp_path / "c")
    settings = json.loads((tmp_path / "c" / "parcellation.json").read_text())
    assert set(Cleaning.__dataclass_fields__) < set(settings)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "at least one image. Got none"),
        ([None], {}, "an image in every row. Got none, first in scan 0"),
        (["absent.nii.gz"], {}, "readable NIfTI image as scan 0. Got 'absent.nii.gz'"),
        ([3], {}, "a path or a nibabel image as scan 0. Got int"),
        ([make_atlas()], {}, "a 4-D image as scan 0. Got one of shape (4, 4, 4)"),
        ([make_image(0)], {"participants": ["a", "b"]}, "Got 2 rows for 1 images"),
        ([make_image(0)], {"labels": ["a", "b"]}, "Got 2 labels for 3 regions"),
        (pd.DataFrame({"a": [1]}), {}, "needs a column 'fmri' of images. Got ['a']"),
    ],
)
def test_unusable_images_are_named(images, options, message):
    with pytest.raises(BrainDataError, match=re.escape(message)):
        parcellate(images, make_atlas(), **options)


def test_unusable_parameters_are_named(tmp_path):
    image, atlas = make_image(0), make_atlas()
    with pytest.raises(TypeError, match=r"list of images.*Pass \[image\] for one scan"):
        parcellate("sub-01_bold.nii.gz", atlas)
    with pytest.raises(ValueError, match=r"t_r must be a number of seconds.*Got 0"):
        parcellate([image], atlas, t_r=0)
    with pytest.raises(ValueError, match=r"resample_to must be one of"):
        parcellate([image], atlas, resample_to="labels")
    table = pd.DataFrame({"bold": [image], "sc": [np.ones((3, 3))]})
    with pytest.raises(BrainDataError, match=r"a table without 'sc'"):
        parcellate(table, atlas, column="bold", out_dir=tmp_path / "c")
    assert parcellate(table, atlas, column="bold")["sc"][0].shape == (3, 3)
    with pytest.raises(ValueError, match="participants once"):
        parcellate(table, atlas, column="bold", participants=["a"])


def test_a_broken_sidecar_is_told(tmp_path):
    paths = write_images(tmp_path, n=1)
    paths[0].with_suffix("").with_suffix(".json").write_text("{")
    with pytest.warns(BrainSymphonyWarning, match=r"could not read 1 files beside"):
        X = parcellate(paths, make_atlas())
    assert X["t_r"].tolist() == [2.0]


def test_a_real_scan_gives_the_means_of_its_voxels(shared):
    bold = nib.load(shared / "data/nifti_haxby/bold.nii.gz")
    mask = np.asarray(nib.load(shared / "data/nifti_haxby/mask.nii.gz").dataobj)
    blocks = np.add.outer(np.arange(40) // 20, 2 * (np.arange(20) // 10))[..., None]
    atlas = np.where(mask > 0, blocks + 1, 0).astype(np.int16)
    X = parcellate([bold], nib.Nifti1Image(atlas, bold.affine), detrend=False)
    assert X["t_r"].tolist() == [2.5]
    data = np.asarray(bold.dataobj)
    for i, value in enumerate((1, 2, 3, 4)):
        expected = data[atlas == value].mean(axis=0)
        np.testing.assert_allclose(X["fmri"][0][:, i], expected, rtol=1e-5)


def test_the_450_regions_of_the_paper_come_in_the_order_of_their_table(shared):
    from bsym_sklearn.data.atlases import load_atlas

    name = "Schaefer400_7N_TianS3_MNI152NLin6Asym_2mm.nii.gz"
    atlas = nib.load(shared / "data/atlas" / name)
    values = np.asarray(atlas.dataobj)
    image = nib.Nifti1Image(np.stack([values, -values], axis=-1), atlas.affine)
    X = parcellate([image], atlas, labels=load_atlas("schaefer+tian"), detrend=False)
    np.testing.assert_allclose(X["fmri"][0][0], np.arange(1, 451), rtol=1e-6)
    assert X.attrs["regions"]["label"][50] == "7Networks_LH_Vis_1"
