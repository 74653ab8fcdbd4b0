"""load_derivatives, on small trees named as XCP-D, fMRIPrep, QSIRecon and MRtrix do."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat, savemat

from bsym_sklearn import BrainSymphonyEmbedder
from bsym_sklearn.data import check_cohort
from bsym_sklearn.data.bids import parse_bids_name
from bsym_sklearn.data.connectomes import UnreadableFileError, read_connectome
from bsym_sklearn.data.derivatives import load_derivatives
from bsym_sklearn.exceptions import BrainDataError, BrainSymphonyWarning

LABELS = ("LH_Vis_1", "LH_Default_1", "RH_Vis_1", "RH_Default_1", "AMY-lh")
ATLAS = "4S156Parcels"
MEASURE = "sift_invnodevol_radius2_count"
SPACE = "space-MNI152NLin6Asym"


def make_series(seed: int, n_timepoints: int = 24) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(rng.normal(size=(n_timepoints, len(LABELS))), columns=LABELS)


def make_weights(seed: int) -> pd.DataFrame:
    half = np.triu(np.random.default_rng(seed).uniform(1, 9, (5, 5)), 1)
    return pd.DataFrame(half + half.T, index=LABELS, columns=LABELS)


def write_xcp_scan(
    folder: Path,
    source: str,
    seed: int,
    *,
    labels: Sequence[str] = LABELS,
    atlas: str = f"atlas-{ATLAS}",
    missing: Sequence[str] = (),
) -> Path:
    """Write what XCP-D 26 writes of a scan: series, sidecars, motion, outliers."""
    parts = source.split("_")
    func = folder.joinpath(*[p for p in parts if p[:4] in ("sub-", "ses-")], "func")
    func.mkdir(parents=True, exist_ok=True)
    table = make_series(seed)[list(labels)]
    table[list(missing)] = np.nan
    path = func / f"{source}_{SPACE}_{atlas}_stat-mean_timeseries.tsv"
    table.to_csv(path, sep="\t", na_rep="n/a", index=False)
    path.with_suffix(".json").write_text('{"SamplingFrequency": "TR"}')
    bold = func / f"{source}_{SPACE}_res-2_desc-denoised_bold.json"
    bold.write_text('{"RepetitionTime": 2.5}')
    (func / f"{source}_motion.tsv").write_text(
        "rot_x\tframewise_displacement\n0\tn/a\n0\t0.1\n0\t0.3\n"
    )
    (func / f"{source}_outliers.tsv").write_text("framewise_displacement\n0\n0\n1\n")
    return path


def write_qsirecon(
    folder: Path,
    source: str,
    seed: int,
    *,
    labels: Sequence[str] = LABELS,
    measures: Sequence[str] = (MEASURE,),
    atlases: Sequence[str] = (ATLAS,),
) -> Path:
    """Write a connectivity.mat as QSIRecon's BuildConnectome does."""
    parts = source.split("_")
    dwi = folder.joinpath(*[p for p in parts if p[:4] in ("sub-", "ses-")], "dwi")
    dwi.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {"command": "tck2connectome"}
    weights = make_weights(seed).loc[list(labels), list(labels)].to_numpy()
    for atlas in atlases:
        content[f"atlas_{atlas}_region_ids"] = np.arange(1, len(labels) + 1)
        content[f"atlas_{atlas}_region_labels"] = np.array(labels, dtype=object)
        for k, measure in enumerate(measures):
            content[f"atlas_{atlas}_{measure}_connectivity"] = weights * (k + 1)
    path = dwi / f"{source}_space-T1w_connectivity.mat"
    savemat(path, content, long_field_names=True)
    return path


def write_csv_connectome(path: Path, weights: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, weights, delimiter=",")


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Return a raw dataset with XCP-D and QSIRecon derivatives of three people."""
    root = tmp_path / "study"
    xcp, qsi = root / "derivatives" / "xcp_d", root / "derivatives" / "qsirecon"
    for folder in (root, xcp, qsi):
        folder.mkdir(parents=True)
        (folder / "dataset_description.json").write_text("{}")
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsite\nsub-01\t31\tn/a\nsub-02\t45\tB\nsub-03\t27\tA\n"
    )
    for seed, scan in enumerate(("run-1", "run-2")):
        write_xcp_scan(xcp, f"sub-01_ses-a_task-rest_{scan}", seed)
    write_xcp_scan(xcp, "sub-01_ses-b_task-rest", 2, labels=LABELS[::-1])
    write_xcp_scan(xcp, "sub-02_ses-a_task-rest", 3)
    write_qsirecon(qsi, "sub-01_ses-a", 0, labels=LABELS[::-1])
    write_qsirecon(qsi, "sub-02_ses-a", 1)
    write_qsirecon(qsi, "sub-03_ses-a", 2)
    return root


def load(root: Path, **parameters: object) -> pd.DataFrame:
    derivatives = root / "derivatives"
    return load_derivatives(
        derivatives / "xcp_d",
        derivatives / "qsirecon",
        **parameters,  # type: ignore[arg-type]
    )


def test_rows_are_scans_with_the_connectome_of_their_session(bids: Path) -> None:
    X = load(bids)
    assert X["participant_id"].tolist() == ["sub-01"] * 3 + ["sub-02", "sub-03"]
    assert X["session_id"].tolist() == ["ses-a", "ses-a", "ses-b", "ses-a", "ses-a"]
    assert X["task"].tolist() == ["rest"] * 4 + [None]
    assert X["run"].tolist() == ["1", "2", None, None, None]
    assert [cell is None for cell in X["sc"]] == [False, False, True, False, False]
    assert [cell is None for cell in X["fmri"]] == [False] * 4 + [True]
    assert X["sc"][0] is X["sc"][1]
    assert X.attrs["skipped"].shape == (0, 2)
    assert list(X.columns) == [
        *("participant_id", "session_id", "task", "run", "age", "site"),
        *("t_r", "mean_fd", "fmri", "sc"),
    ]


def test_regions_are_matched_by_label_in_both_modalities(bids: Path) -> None:
    X = load(bids)
    assert X.attrs["regions"]["label"].tolist() == list(LABELS)
    np.testing.assert_array_equal(X["sc"][0], make_weights(0).astype(np.float32))
    np.testing.assert_array_equal(X["sc"][3], make_weights(1).astype(np.float32))
    assert isinstance(X["fmri"][0], str)  # the file's own order: opened lazily
    np.testing.assert_allclose(X["fmri"][2], make_series(2), rtol=1e-6)
    np.testing.assert_allclose(
        check_cohort(X).read_fmri(0, dtype=None), make_series(0), rtol=1e-12
    )


def test_covariates_repetition_time_and_motion_are_joined(bids: Path) -> None:
    X = load(bids)
    assert X["age"].tolist() == [31, 31, 31, 45, 27]
    assert X["site"].tolist() == [None, None, None, "B", "A"]
    assert X["t_r"][:4].tolist() == [2.5] * 4
    assert np.isnan(X["t_r"][4])
    assert X["mean_fd"][:4].tolist() == [0.2] * 4  # motion.tsv, not outliers.tsv


def test_cohort_passes_the_checks_and_trains_an_embedder(bids: Path) -> None:
    X = load(bids)
    cohort = check_cohort(X)
    assert (len(cohort), cohort.n_regions, cohort.modalities) == (5, 5, ("fmri", "sc"))
    embedder = BrainSymphonyEmbedder(
        dim=8, depth=1, n_heads=2, window=16, max_epochs=1, random_state=0, device="cpu"
    )
    features = embedder.fit(X).transform(X)
    assert features.shape[0] == 5
    assert np.isfinite(features).all()


def test_frames_can_be_joined_although_attrs_hold_tables(bids: Path) -> None:
    X = load(bids)
    assert len(pd.concat([X, load(bids)])) == 10


def test_one_modality_alone(bids: Path) -> None:
    derivatives = bids / "derivatives"
    fmri = load_derivatives(derivatives / "xcp_d")
    sc = load_derivatives(sc_dir=derivatives / "qsirecon")
    assert "sc" not in fmri
    assert "fmri" not in sc
    assert "t_r" not in sc
    assert sc["age"].tolist() == [31, 45, 27]
    assert check_cohort(sc).modalities == ("sc",)


def test_no_participants_table_gives_no_covariates(bids: Path) -> None:
    (bids / "participants.tsv").unlink()
    assert list(load(bids).columns[:5]) == [
        *("participant_id", "session_id", "task", "run", "t_r"),
    ]


def test_connectome_without_session_stands_in_all_sessions(bids: Path) -> None:
    qsi = bids / "derivatives" / "other"
    write_qsirecon(qsi, "sub-01", 4)
    X = load_derivatives(bids / "derivatives" / "xcp_d", qsi)
    assert [cell is not None for cell in X["sc"]] == [True, True, True, False]


def test_values_of_a_session_go_before_those_of_the_person(bids: Path) -> None:
    path = bids / "sub-01" / "sub-01_sessions.tsv"
    path.parent.mkdir()
    path.write_text("session_id\tage\tdose\nses-a\t32\t5\nb\tn/a\t7\n")
    X = load(bids)
    assert X["age"].tolist() == [32, 32, 31, 45, 27]
    assert X["dose"][:3].tolist() == [5, 5, 7]
    assert X["dose"][3:].isna().all()


@pytest.mark.parametrize(
    ("sidecar", "content", "expected"),
    [
        ("study/task-rest_bold.json", {"RepetitionTime": 0.8}, 0.8),
        ("study/sub-02/sub-02_task-rest_bold.json", {"RepetitionTime": 0.9}, 0.9),
        ("study/task-faces_bold.json", {"RepetitionTime": 0.7}, np.nan),
        ("study/task-rest_T1w.json", {"RepetitionTime": 0.7}, np.nan),
    ],
)
def test_repetition_time_is_inherited(
    bids: Path, sidecar: str, content: dict[str, float], expected: float
) -> None:
    func = bids / "derivatives" / "xcp_d" / "sub-02" / "ses-a" / "func"
    next(func.glob("*_bold.json")).unlink()
    path = bids.parent / sidecar
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    X = load_derivatives(bids / "derivatives" / "xcp_d")
    np.testing.assert_equal(X["t_r"].tolist(), [2.5, 2.5, 2.5, expected])


def test_the_nearest_and_most_exact_sidecar_wins(bids: Path) -> None:
    xcp = bids / "derivatives" / "xcp_d"
    (xcp / "task-rest_bold.json").write_text('{"RepetitionTime": 9}')
    near = xcp / "sub-02" / "ses-a" / "func" / "sub-02_ses-a_task-rest_timeseries.json"
    near.write_text('{"RepetitionTime": 1.5}')
    assert load_derivatives(xcp)["t_r"].tolist() == [2.5, 2.5, 2.5, 1.5]


def test_unusable_sidecars_are_listed(bids: Path) -> None:
    func = bids / "derivatives" / "xcp_d" / "sub-02" / "ses-a" / "func"
    next(func.glob("*_bold.json")).write_text('{"RepetitionTime": "two"}')
    next(func.glob("*_timeseries.json")).write_text("{")
    next(func.glob("*_motion.tsv")).write_text("rot_x\n0\n")
    with pytest.warns(BrainSymphonyWarning, match="skipped 3 files, first"):
        X = load(bids)
    assert np.isnan(X["t_r"][3])
    assert np.isnan(X["mean_fd"][3])
    reasons = " ".join(X.attrs["skipped"]["reason"])
    assert "RepetitionTime is 'two' instead of a number of seconds" in reasons
    assert "cannot be read as JSON" in reasons
    assert "no framewise_displacement can be read" in reasons


def test_motion_of_fmriprep_and_of_older_xcp_is_read(bids: Path) -> None:
    for scan, name in (
        ("sub-02_ses-a_task-rest", "desc-confounds_timeseries"),
        ("sub-01_ses-b_task-rest", "desc-filtered_motion"),
    ):
        parts = scan.split("_")[:2]
        func = bids.joinpath("derivatives", "xcp_d", *parts, "func")
        old = func / f"{scan}_motion.tsv"
        old.rename(func / f"{scan}_{name}.tsv")
    assert load(bids)["mean_fd"][:4].tolist() == [0.2] * 4


def test_corrupt_files_are_skipped_and_listed(bids: Path) -> None:
    derivatives = bids / "derivatives"
    bad = write_xcp_scan(derivatives / "xcp_d", "sub-02_task-rest_run-2", 9)
    bad.write_bytes(b"\x00\xff\xfe\x00" * 40)
    mat = next((derivatives / "qsirecon" / "sub-02").rglob("*.mat"))
    mat.write_bytes(mat.read_bytes()[:300])
    with pytest.warns(BrainSymphonyWarning, match=r"skipped 2 files, first '.*run-2"):
        X = load(bids)
    assert X.attrs["skipped"]["file"].tolist() == [str(bad), str(mat)]
    assert X.attrs["skipped"]["reason"].str.startswith("cannot be read").all()
    assert len(X) == 5
    assert X["sc"][3] is None


def test_only_corrupt_files_raise(tmp_path: Path) -> None:
    write_xcp_scan(tmp_path, "sub-01_task-rest", 0).write_text("")
    with pytest.raises(BrainDataError, match=r"Got none, the last '.*\(cannot be read"):
        load_derivatives(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\ta\n1\t2\n", "names more than one region 'a'"),
        ("a\tb\n", "2 names above 0 values"),
        ("a\tb\n1\t2\t3\n", "2 names above 3 values"),
        ("0.1\t0.2\n1\t2\n", "numbers instead of region names"),
        ("a\t\n1\t2\n", "names more than one region ''"),
    ],
)
def test_unusable_series_say_why(tmp_path: Path, text: str, reason: str) -> None:
    write_xcp_scan(tmp_path, "sub-01_task-rest", 0).write_text(text)
    with pytest.raises(BrainDataError, match=reason):
        load_derivatives(tmp_path)


def test_two_atlases_need_a_choice(bids: Path) -> None:
    xcp = bids / "derivatives" / "xcp_d"
    write_xcp_scan(xcp, "sub-02_ses-a_task-rest", 3, atlas="atlas-Tian")
    with pytest.raises(
        BrainDataError,
        match=r"one atlas in fmri\. Got 4S156Parcels, Tian, first in .*atlas='4S156P",
    ):
        load(bids)
    assert len(load(bids, atlas=ATLAS)) == 5
    with pytest.raises(BrainDataError, match=r"atlas 'AAL' in fmri\. Got 4S156Parcels"):
        load(bids, atlas="AAL")


def test_names_of_older_xcp_are_read(tmp_path: Path) -> None:
    write_xcp_scan(tmp_path, "sub-01_task-rest", 0, atlas="seg-Tian")
    path = write_xcp_scan(tmp_path, "sub-02_task-rest", 1)
    path.rename(path.with_name("sub-02_task-rest_space-fsLR_atlas-Tian_timeseries.tsv"))
    assert load_derivatives(tmp_path)["fmri"].notna().tolist() == [True, True]


def test_two_atlases_and_measures_in_a_mat_file_need_a_choice(tmp_path: Path) -> None:
    write_qsirecon(
        *(tmp_path, "sub-01", 0),
        measures=("radius2_count", MEASURE),
        atlases=("AAL116", ATLAS),
    )
    with pytest.raises(
        BrainDataError, match=r"one atlas of .* 4S156Parcels, AAL116 in"
    ):
        load_derivatives(sc_dir=tmp_path)
    with pytest.raises(BrainDataError, match=r"as measure='radius2_count'\."):
        load_derivatives(sc_dir=tmp_path, atlas=ATLAS)
    X = load_derivatives(sc_dir=tmp_path, atlas=ATLAS, measure="radius2_count")
    np.testing.assert_array_equal(X["sc"][0], make_weights(0).astype(np.float32))
    with pytest.raises(BrainDataError, match="has no measure 'fa', only radius2_count"):
        load_derivatives(sc_dir=tmp_path, atlas=ATLAS, measure="fa")


def test_two_files_of_one_scan_raise_and_say_how_to_choose(bids: Path) -> None:
    xcp = bids / "derivatives" / "xcp_d"
    path = write_xcp_scan(xcp, "sub-02_ses-a_task-rest", 3)
    name = path.name.replace("6Asym", "2009cAsym")
    path.with_name(name).write_bytes(path.read_bytes())
    with pytest.raises(
        BrainDataError, match=r"one file per scan.*fmri_entities=\{'space"
    ):
        load(bids)
    X = load(bids, fmri_entities={"space": "MNI152NLin6Asym"})
    assert len(X) == 5


def test_entities_choose_scans_and_name_what_is_absent(bids: Path) -> None:
    X = load_derivatives(bids / "derivatives" / "xcp_d", fmri_entities={"ses": "b"})
    assert X["session_id"].tolist() == ["ses-b"]
    with pytest.raises(
        BrainDataError, match=r"Got none with fmri_entities=\{'task': 'x'"
    ):
        load(bids, fmri_entities={"task": "x"})


def test_joined_runs_are_skipped_unless_asked_for(bids: Path) -> None:
    xcp = bids / "derivatives" / "xcp_d"
    joined = write_xcp_scan(xcp, "sub-01_ses-a_task-rest", 8)
    with pytest.warns(
        BrainSymphonyWarning, match="joins runs that are read one by one"
    ):
        X = load(bids)
    assert X.attrs["skipped"]["file"].tolist() == [str(joined)]
    assert len(X) == 5
    X = load(bids, fmri_entities={"run": None})
    assert X["fmri"][0] == str(joined)


def test_regions_that_differ_raise_are_skipped_or_left_out(bids: Path) -> None:
    xcp = bids / "derivatives" / "xcp_d"
    odd = write_xcp_scan(xcp, "sub-02_ses-a_task-rest", 3, missing=["LH_Vis_1"])
    with pytest.raises(
        BrainDataError, match=r"Got 1 missing region \(LH_Vis_1\), first in '.*sub-02"
    ):
        load(bids)
    with pytest.warns(BrainSymphonyWarning, match="has 1 missing region"):
        X = load(bids, on_mismatch="skip")
    assert X.attrs["skipped"]["file"].tolist() == [str(odd)]
    assert X.loc[X["participant_id"] == "sub-02", "fmri"].tolist() == [None]
    with pytest.warns(BrainSymphonyWarning, match="not in every file: LH_Vis_1"):
        X = load(bids, on_mismatch="common")
    assert X.attrs["regions"]["label"].tolist() == list(LABELS[1:])
    np.testing.assert_allclose(
        X["fmri"][3], make_series(3)[list(LABELS[1:])], rtol=1e-6
    )
    assert check_cohort(X).n_regions == 4


def test_regions_that_differ_between_modalities_raise(bids: Path) -> None:
    write_qsirecon(
        bids / "derivatives" / "qsirecon", "sub-03_ses-a", 2, labels=LABELS[1:]
    )
    with pytest.raises(BrainDataError, match=r"missing region \(LH_Vis_1\), .*sub-03"):
        load(bids)


def test_nothing_in_common_raises(tmp_path: Path) -> None:
    write_xcp_scan(tmp_path / "a", "sub-01_task-rest", 0)
    folder = tmp_path / "b" / "sub-01"
    write_csv_connectome(folder / "sub-01_connectome.csv", np.ones((2, 2)))
    with pytest.raises(BrainDataError, match="Got none in common, of 5"):
        load_derivatives(
            *(tmp_path / "a", tmp_path / "b"),
            sc_labels=["x", "y"],
            on_mismatch="common",
        )


def test_mrtrix_matrix_needs_labels_from_somewhere(tmp_path: Path) -> None:
    name = "sub-01_parc-desikan_level-participant_connectome.csv"
    path = tmp_path / "sub-01" / "connectome" / name
    weights = make_weights(0).to_numpy()
    write_csv_connectome(path, np.triu(weights))  # without -symmetric
    with pytest.raises(
        BrainDataError, match="needs labels of the regions of every conn"
    ):
        load_derivatives(sc_dir=tmp_path)
    X = load_derivatives(sc_dir=tmp_path, sc_labels=LABELS)
    np.testing.assert_array_equal(X["sc"][0], weights.astype(np.float32))
    with pytest.raises(BrainDataError, match="has 2 labels for 5 regions"):
        load_derivatives(sc_dir=tmp_path, sc_labels=["a", "b"])


def test_atlas_table_names_rows_and_describes_regions(tmp_path: Path) -> None:
    path = tmp_path / "sub-01" / "sub-01_atlas-Tiny_connectivity.csv"
    write_csv_connectome(path, make_weights(0).to_numpy())
    table = pd.DataFrame({"index": [5, 4, 3, 2, 1], "name": LABELS[::-1]})
    table["network_label"] = [f"net{i}" for i in table["index"]]
    table.loc[5] = [0, "background", "n/a"]
    atlases = tmp_path / "atlases"
    atlases.mkdir()
    table.to_csv(atlases / "atlas-Tiny_dseg.tsv", sep="\t", index=False)
    X = load_derivatives(sc_dir=tmp_path)
    regions = X.attrs["regions"]
    assert regions["label"].tolist() == list(LABELS)
    assert regions["network_label"].tolist() == ["net1", "net2", "net3", "net4", "net5"]


@pytest.mark.parametrize("layout", ["both", "columns", "blanks"])
def test_csv_with_names_needs_no_labels(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "sub-01" / "sub-01_atlas-Tiny_connectome.csv"
    path.parent.mkdir()
    weights = make_weights(0)
    sep = " " if layout == "blanks" else ","
    weights.to_csv(path, sep=sep, index=layout == "both")
    X = load_derivatives(sc_dir=tmp_path)
    assert X.attrs["regions"]["label"].tolist() == list(LABELS)
    np.testing.assert_allclose(X["sc"][0], weights, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2\n3\n", "rows of different lengths"),
        ("", "no numbers"),
        ("1,2,3\n4,5,6\n", r"a matrix of shape \(2, 3\), no square"),
        ("only\ta\theader\n", r"a matrix of shape \(0,\), no square"),
        ("a,b\n1,x\n2,1\n", "could not convert"),
        (",a,b\na,0,1\nc,1,0\n", "rows and columns have different names"),
    ],
)
def test_unusable_matrices_say_why(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "sub-01" / "sub-01_atlas-Tiny_connectome.csv"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BrainDataError, match=reason):
        load_derivatives(sc_dir=tmp_path, sc_labels=["a", "b"])


def test_objects_in_mat_files_are_not_read(tmp_path: Path) -> None:
    path = write_qsirecon(tmp_path, "sub-01", 0)
    name = f"atlas_{ATLAS}_{MEASURE}_connectivity"
    cells = np.empty((5, 5), dtype=object)
    cells[:] = [[{"a": 1}] * 5] * 5
    savemat(path, {name: cells}, long_field_names=True)
    with pytest.raises(BrainDataError, match="has no atlas, only none"):
        load_derivatives(sc_dir=tmp_path)
    labels = np.empty(5, dtype=object)
    labels[:] = [np.ones(3)] * 5
    savemat(
        path,
        {name: np.ones((5, 5)), f"atlas_{ATLAS}_region_labels": labels},
        long_field_names=True,
    )
    with pytest.raises(BrainDataError, match="something else than text where labels"):
        load_derivatives(sc_dir=tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_mat_files_raise_nothing_else(tmp_path: Path, compressed: bool) -> None:
    path = write_qsirecon(tmp_path, "sub-01", 0)
    if compressed:
        content = {k: v for k, v in loadmat(path).items() if k[0] != "_"}
        savemat(path, content, long_field_names=True, do_compression=True)
    good = path.read_bytes()
    file = parse_bids_name(path)
    assert file is not None
    assert read_connectome(file, ATLAS, MEASURE).labels == LABELS
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(300):
        bad = bytearray(good)
        for position in rng.integers(126, len(good), size=3):
            bad[position] = rng.integers(256)
        path.write_bytes(bytes(bad[: rng.integers(1, len(good) + 1)]))
        try:
            read_connectome(file, ATLAS, MEASURE)
        except UnreadableFileError:  # scipy's own reader crashes on some of these
            n_refused += 1
    assert n_refused > 200


def write_cifti(path: Path, values: np.ndarray, *, step: float) -> None:
    cortex = nib.cifti2.BrainModelAxis.from_mask(np.ones(5, bool), "CORTEX_LEFT")
    parcels = nib.cifti2.ParcelsAxis.from_brain_models(
        [(label, cortex[i : i + 1]) for i, label in enumerate(LABELS)]
    )
    steps = nib.cifti2.SeriesAxis(start=0, step=step, size=len(values), unit="SECOND")
    header = nib.Cifti2Header.from_axes((steps, parcels))
    nib.Cifti2Image(values.astype(np.float32), header).to_filename(path)


def test_cifti_series_have_labels_and_a_repetition_time(tmp_path: Path) -> None:
    func = tmp_path / "sub-01" / "func"
    func.mkdir(parents=True)
    path = func / "sub-01_task-rest_space-fsLR_den-91k_bold.ptseries.nii"
    write_cifti(path, make_series(0).to_numpy(), step=0.72)
    X = load_derivatives(tmp_path)
    assert X["t_r"].tolist() == [pytest.approx(0.72)]
    assert X.attrs["regions"]["label"].tolist() == list(LABELS)
    np.testing.assert_allclose(X["fmri"][0], make_series(0), rtol=1e-6)
    assert check_cohort(X).n_regions == 5
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(BrainDataError, match="cannot be read"):
        load_derivatives(tmp_path)


def test_table_is_read_where_xcp_wrote_it_and_cifti(tmp_path: Path) -> None:
    table = write_xcp_scan(tmp_path, "sub-01_task-rest", 0)
    name = "sub-01_task-rest_space-fsLR_atlas-4S156Parcels_den-91k_stat-mean_timeseries"
    path = table.with_name(f"{name}.ptseries.nii")
    write_cifti(path, make_series(0).to_numpy(), step=0.72)
    X = load_derivatives(tmp_path)
    assert X["fmri"].tolist() == [str(table)]
    assert X.attrs["skipped"].empty


def test_links_out_of_the_dataset_are_not_read(bids: Path, tmp_path: Path) -> None:
    outside = write_xcp_scan(tmp_path / "outside", "sub-09_task-rest", 0)
    func = bids / "derivatives" / "xcp_d" / "sub-09" / "func"
    func.mkdir(parents=True)
    (func / outside.name).symlink_to(outside)
    (func / "sub-09_task-gone_atlas-4S156Parcels_timeseries.tsv").symlink_to("nowhere")
    (func.parents[1] / "sub-10").symlink_to(tmp_path / "outside")
    with pytest.warns(BrainSymphonyWarning, match="skipped 3 files"):
        X = load(bids)
    assert len(X) == 5
    reasons = sorted(X.attrs["skipped"]["reason"])
    assert reasons[0].startswith("a link that leads out of the dataset")
    assert reasons[1].startswith("a link to a file that is not here; with DataLad")
    assert reasons[2].startswith("a link to a folder")


def test_links_within_the_dataset_are_read(bids: Path) -> None:
    func = bids / "derivatives" / "xcp_d" / "sub-02" / "ses-a" / "func"
    path = next(func.glob("*_timeseries.tsv"))
    annex = bids / ".git" / "annex"
    annex.mkdir(parents=True)
    path.rename(annex / "key")
    path.symlink_to(annex / "key")
    assert load(bids)["fmri"][3] == str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "participant_id\tage\nsub-01\t1\n01\t2\n",
            "every participant_id once in .*'sub",
        ),
        (
            "subject\tage\nsub-01\t1\n",
            r"a column 'participant_id' in .*Got \['subject'",
        ),
        ("participant_id\tage\nsub-77\t1\n", "Got 'sub-77' there and 'sub-01' in the"),
        (
            "participant_id\ttask\nsub-01\t1\n",
            "other names for the columns .* Got 'task'",
        ),
        ("participant_id\tage\n", "Got 'nobody' there and 'sub-01' in the"),
        ("participant_id\tage\nsub-01\t1\t2\t3\n", "a tab-separated table in"),
        ("participant_id\tage\nsub-01\t\0\n", r"cannot be read \(a zero byte\)"),
    ],
)
def test_unusable_participants_raise(bids: Path, text: str, message: str) -> None:
    (bids / "participants.tsv").write_text(text)
    with pytest.raises(BrainDataError, match=message):
        load(bids)


def test_empty_and_absent_folders_raise(tmp_path: Path) -> None:
    with pytest.raises(BrainDataError, match=r"fmri files in fmri_dir\. Got none in"):
        load_derivatives(tmp_path)
    with pytest.raises(BrainDataError, match=r"sc files in sc_dir\. Got none in"):
        load_derivatives(sc_dir=tmp_path)
    with pytest.raises(
        BrainDataError, match=r"a folder in sc_dir\. Got .*which is none"
    ):
        load_derivatives(sc_dir=tmp_path / "none")
    with pytest.raises(ValueError, match="needs fmri_dir, sc_dir or both"):
        load_derivatives()
    with pytest.raises(ValueError, match="on_mismatch must be one of"):
        load_derivatives(tmp_path, on_mismatch="drop")  # type: ignore[arg-type]


def test_other_entities_become_columns_where_they_occur(tmp_path: Path) -> None:
    write_xcp_scan(tmp_path, "sub-01_task-rest_dir-AP", 0)
    write_xcp_scan(tmp_path, "sub-01_task-rest_dir-PA", 1)
    X = load_derivatives(tmp_path)
    assert X["dir"].tolist() == ["AP", "PA"]
    assert "acq" not in X


def test_nothing_is_warned_of_when_nothing_is_skipped(bids: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(bids).attrs["skipped"].empty


@pytest.mark.parametrize(
    ("name", "entities"),
    [
        ("sub-01_task-rest_bold.nii.gz", {"sub": "01", "task": "rest"}),
        (
            "sub-01_atlas-schaefer-400_timeseries.tsv",
            {"sub": "01", "atlas": "schaefer-400"},
        ),
        ("sub-01_sub-02_bold.json", None),
        ("sub-01_rest_bold.json", None),
        ("sub-01_task-_bold.json", None),
        ("notes.txt", {}),
        ("sub-01_bold", None),
    ],
)
def test_names_are_parsed(name: str, entities: dict[str, str] | None) -> None:
    file = parse_bids_name(Path(name))
    assert (None if file is None else dict(file.entities)) == entities


def test_hdf5_without_h5py_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sub-01" / "sub-01_connectivity.h5"
    path.parent.mkdir()
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        ImportError, match=r"needs h5py to read HDF5\. .*pip install h5py"
    ):
        load_derivatives(sc_dir=tmp_path)


@pytest.mark.parametrize("kind", ["text", "references"])
def test_hdf5_is_read_without_following_links(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "sub-01" / "sub-01_connectivity.h5"
    path.parent.mkdir()
    weights = make_weights(0).to_numpy()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = weights
    with h5py.File(path, "w") as file:
        file[f"atlas_{ATLAS}_{MEASURE}_connectivity"] = weights
        file[f"atlas_{ATLAS}_radius2_count_connectivity"] = h5py.ExternalLink(
            str(tmp_path / "other.h5"), "secret"
        )
        name = f"atlas_{ATLAS}_region_labels"
        if kind == "text":
            file[name] = list(LABELS)
        else:  # as MATLAB 7.3 does
            for i, label in enumerate(LABELS):
                file[f"#refs#/{i}"] = np.array([[ord(c)] for c in label], np.uint16)
            references = [file[f"#refs#/{i}"].ref for i in range(5)]
            file.create_dataset(name, (1, 5), h5py.ref_dtype)[0] = references
    X = load_derivatives(sc_dir=tmp_path)
    assert X.attrs["regions"]["label"].tolist() == list(LABELS)
    np.testing.assert_allclose(X["sc"][0], weights, rtol=1e-6)


def test_participants_without_a_row_are_listed(bids: Path) -> None:
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-01\t31\n2\t45\n")
    with pytest.warns(BrainSymphonyWarning, match=r"no row of sub-02, who has no cov"):
        X = load(bids)
    files = X.attrs["skipped"]
    assert files["reason"].str.contains("sub-0[23]").sum() == 2
    assert X.loc[X["participant_id"] == "sub-01", "age"].eq(31).all()


@pytest.mark.parametrize("seconds", ["800", "1" + "0" * 400])
def test_milliseconds_are_no_repetition_time(bids: Path, seconds: str) -> None:
    func = bids / "derivatives" / "xcp_d" / "sub-02" / "ses-a" / "func"
    next(func.glob("*_bold.json")).write_text(f'{{"RepetitionTime": {seconds}}}')
    with pytest.warns(BrainSymphonyWarning, match="instead of a number of seconds"):
        assert np.isnan(load(bids)["t_r"][3])
