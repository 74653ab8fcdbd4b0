"""What can be a target, and what is said of what cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import DataConversionWarning

from bsym_sklearn import BrainDataError
from bsym_sklearn.data.checks import check_target

WHO = DummyClassifier()


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        ([0, 1, 1], "i"),
        ([0.5, 1.0, 2.0], "f"),
        ([True, False, True], "b"),
        (["a", "b", "a"], "U"),
        (pd.Series(["a", "b", "a"]), "O"),
        (pd.Series([1, 2, 3], index=[5, 6, 7]), "i"),
    ],
)
def test_one_value_per_scan_is_returned_as_it_was(y: Any, kind: str) -> None:
    checked = check_target(y, 3, WHO)
    assert isinstance(checked, np.ndarray)
    assert checked.shape == (3,)
    assert checked.dtype.kind == kind
    assert checked.tolist() == list(y)


def test_a_column_is_flattened_with_a_warning() -> None:
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        assert check_target(np.array([[1], [2]]), 2, WHO).tolist() == [1, 2]


def test_no_target_is_an_error() -> None:
    message = "DummyClassifier requires y to be passed, but the target y is None"
    with pytest.raises(ValueError, match=message):
        check_target(None, 2, WHO)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_label_names_its_scan(missing: Any) -> None:
    message = "needs a target for every scan. Got none, first in scan 1. Leave the scan"
    with pytest.raises(BrainDataError, match=message):
        check_target(np.array(["a", missing, None], dtype=object), 3, WHO)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="Input y contains"):
        check_target(np.array([1.0, value]), 2, WHO)


def test_another_number_of_targets_is_an_error() -> None:
    message = (
        "DummyClassifier needs one target per scan. Got inconsistent numbers: 3 scans "
        "and 2 targets. Select the same rows of both."
    )
    with pytest.raises(BrainDataError, match=message):
        check_target([0, 1], 3, WHO)


def test_two_targets_per_scan_are_an_error() -> None:
    with pytest.raises(ValueError, match="y should be a 1d array"):
        check_target(np.zeros((3, 2)), 3, WHO)
