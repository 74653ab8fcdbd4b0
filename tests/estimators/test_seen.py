"""What a model keeps of its participants: found again, and hard to look up."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from bsym_sklearn.data import check_cohort
from bsym_sklearn.estimators.seen import (
    SALTED,
    add_participants,
    describe_regions,
    describe_scans,
    pack_participants,
    participant_hashes,
    shared_participants,
    unpack_participants,
)
from bsym_sklearn.exceptions import CheckpointError


def test_participants_of_several_models_with_and_without_salt_are_found():
    plain = add_participants([], ["a", "b"])
    first, second = (
        unpack_participants(pack_participants(add_participants([], [*names])))
        for names in ("bc", "cd")
    )
    assert shared_participants("abcde", [*plain, *first, *second]) == {*"abcd"}
    assert shared_participants("e", [*plain, *first, *second]) == set()
    assert shared_participants("abc", []) == set()


def test_the_union_counts_each_participant_once():
    salted = unpack_participants(pack_participants(add_participants([], "abc")))
    union = add_participants(salted, ["c", "c", "d"])
    assert len(union) == 4
    assert {x.partition(":")[0] for x in union} == {salted[0].partition(":")[0]}
    assert pack_participants(union)["salt"] == salted[0].partition(":")[0]


def test_packing_twice_draws_two_salts_and_unpacking_packs_the_same():
    seen = add_participants([], "abc")
    first, second = pack_participants(seen), pack_participants(seen)
    assert first["salt"] != second["salt"]
    assert first["method"] == SALTED
    assert pack_participants(unpack_participants(first)) == first
    assert pack_participants([]) == {"method": SALTED, "salt": None, "hashes": []}


def test_old_hashes_are_kept_as_they_are_and_salted_when_packed():
    old = {"method": "sha256", "salt": None, "hashes": sorted(participant_hashes("ab"))}
    seen = unpack_participants(old)
    assert seen == old["hashes"]
    assert shared_participants("bc", unpack_participants(pack_participants(seen))) == {
        "b"
    }


def test_a_salted_hash_takes_about_a_millisecond():
    names = [f"sub-{i}" for i in range(50)]
    start = time.process_time()
    pack_participants(add_participants([], names))
    assert 1e-4 < (time.process_time() - start) / len(names) < 2e-2


@pytest.mark.parametrize(
    "packed",
    [
        [],
        {"hashes": "abc"},
        {"hashes": ["0" * 32], "method": SALTED, "salt": 3},
        {"hashes": ["0" * 32], "method": "sha256", "salt": None},
        {"hashes": ["0" * 64], "method": "sha256", "salt": "0" * 32},
        {"hashes": ["0" * 31 + "\n"], "method": SALTED, "salt": "0" * 32},
        {"hashes": [3], "method": SALTED, "salt": "0" * 32},
        {"hashes": ["0" * 32], "method": ["x"][0], "salt": "0" * 32},
    ],
)
def test_hashes_of_another_form_are_refused(packed):
    with pytest.raises(CheckpointError, match="hashes of participants that this"):
        unpack_participants(packed)


def test_scans_are_described_by_counts():
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(n, 3)) for n in (10, 20, 40)]
    X = pd.DataFrame({"fmri": [*series, None], "sc": [np.ones((3, 3))] * 4})
    described = describe_scans(
        check_cohort(X), ("fmri", "sc"), np.array([0.72, 2, 0.7200001, 1.0]), 2
    )
    assert described == {
        "n_scans": 4,
        "n_participants": 2,
        "modalities": ["fmri", "sc"],
        "n_missing": {"fmri": 1, "sc": 0},
        "n_timepoints": {"min": 10, "median": 20.0, "max": 40},
        "t_r": [0.72, 2.0],
    }
    assert describe_scans(check_cohort(X), ("sc",), None, None)["n_timepoints"] is None


def test_tables_of_regions_lose_paths_and_what_is_no_text_or_number():
    table = pd.DataFrame(
        {
            "label": ["a/b", "c"],
            3: np.array([1, 2], dtype=np.int16),
            "x": [0.5, np.inf],
            "left": [True, False],
            "network": pd.Categorical(["n", None]),
            "file": ["/home/me/atlas.nii", "b"],
            "drive": ["C:\\atlas.nii", "b"],
            "home": ["~/atlas.nii", "b"],
            "cells": [[1], [2]],
        }
    )
    assert describe_regions(table) == {
        "label": ["a/b", "c"],
        "3": [1, 2],
        "x": [0.5, None],
        "left": [True, False],
        "network": ["n", None],
    }
    assert describe_regions(None) == {}


def test_the_prefix_of_bids_makes_nobody_another_person():
    plain = add_participants([], ["sub-1", "2"])
    salted = unpack_participants(pack_participants(plain))
    for seen in (plain, salted):
        assert shared_participants(["1", "sub-2", "3"], seen) == {"1", "sub-2"}
