"""What the transformers of scans share: X of any form in, the same form out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._set_output import _wrap_data_with_container
from sklearn.utils.validation import check_is_fitted, validate_data

from bsym_sklearn.data.checks import ConstantRegions, SymmetricSC
from bsym_sklearn.data.cohort import Cohort, check_cohort
from bsym_sklearn.data.containers import is_table, replace_cells
from bsym_sklearn.data.recording import Recording
from bsym_sklearn.exceptions import BrainDataError


class ScanTransformer(  # type: ignore[call-arg]  # scikit-learn has no types
    OneToOneFeatureMixin,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,  # set_output concerns tables only, see transform
):
    """Base of transformers that replace one modality's arrays, scan by scan.

    Lists come back as lists, 3-D arrays as 3-D arrays, DataFrames as DataFrames with
    that column replaced; files are read, so path cells come back as arrays.
    ``set_output`` concerns 2-D tables only.
    """

    _modality = "fmri"
    _accepts_tables = True
    _min_timepoints = 1
    _symmetric_sc: SymmetricSC = "allow"  # not the business of who leaves sc alone

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from the training rows.

        Parameters
        ----------
        X : DataFrame, list, ndarray, Tensor, SliceDict, Series or Cohort
            Scans in any form that `check_cohort` accepts.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        BrainDataError
            If the data cannot be used; the message names the scan.
        ValueError
            If a parameter is out of its range.
        """
        self._check_parameters()
        cohort = self._check_input(X, reset=True)
        if not any(r is not None for r in self._recordings(cohort)):
            raise BrainDataError(
                f"{type(self).__name__} needs {self._modality!r} in at least one row. "
                f"Got {list(cohort.modalities)} only. Pass rows that have it."
            )
        self.n_features_in_ = cohort.n_regions
        self._fit_cohort(cohort)
        return self

    def transform(self, X: Any) -> Any:
        """Transform scans.

        Parameters
        ----------
        X : DataFrame, list, ndarray, Tensor, SliceDict, Series or Cohort
            Scans in any form that `check_cohort` accepts. Rows without the modality
            stay as they are.

        Returns
        -------
        X_new : same form as X
            X with the arrays of the modality replaced; X itself is not changed.

        Raises
        ------
        BrainDataError
            If the data cannot be used; the message names the scan.
        """
        check_is_fitted(self)
        cohort = self._check_input(X, reset=False)
        arrays = self._transform_cohort(cohort)
        if isinstance(X, Cohort):
            return self._complete(cohort.replace_arrays(self._modality, arrays))
        if cohort.is_table:
            table = np.concatenate(arrays)
            return _wrap_data_with_container("transform", table, X, self)
        return self._complete(replace_cells(X, arrays, column=self._modality))

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Learn from scans and transform them; see `fit` and `transform`.

        Parameters
        ----------
        X : DataFrame, list, ndarray, Tensor, SliceDict, Series or Cohort
            Scans in any form that `check_cohort` accepts.
        y : None
            Ignored.

        Returns
        -------
        X_new : same form as X
            X with the arrays of the modality replaced; X itself is not changed.
        """
        # not TransformerMixin's, which makes a DataFrame of whatever comes out
        return self.fit(X, y).transform(X)

    def _complete(self, X_new: Any) -> Any:
        """Change what lies beside the arrays, where that is needed."""
        return X_new

    def _check_parameters(self) -> None:
        """Raise if a constructor parameter is out of its range."""

    @abstractmethod
    def _fit_cohort(self, cohort: Cohort) -> None:
        """Learn from validated scans."""

    @abstractmethod
    def _transform_scan(self, values: np.ndarray, label: str) -> np.ndarray:
        """Return the new array of one scan; `label` names it in errors."""

    def _transform_cohort(self, cohort: Cohort) -> list[Any]:
        return [
            None if r is None else self._transform_scan(r.read(dtype=None), r.label)
            for r in self._recordings(cohort)
        ]

    def _recordings(self, cohort: Cohort) -> tuple[Recording | None, ...]:
        """Return what is transformed; the rows of a table, whatever they hold."""
        if self._modality == "fmri" or cohort.is_table:
            return cohort.fmri
        return cohort.sc

    def _check_input(self, X: Any, *, reset: bool) -> Cohort:
        name = type(self).__name__
        if is_table(X) and self._accepts_tables:
            X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        elif reset and hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of a table that was fitted before
        cohort = check_cohort(
            X,
            caller=name,
            constant_regions=self._constant_regions(),
            symmetric_sc=self._symmetric_sc,
            min_timepoints=self._min_timepoints,
            n_regions=None if reset else self.n_features_in_,
            bare=self._modality,
        )
        if cohort.is_table and not self._accepts_tables:
            raise no_table_error(name)
        return cohort

    def _constant_regions(self) -> ConstantRegions:
        """Return the policy for constant regions, where the transformer has one."""
        return getattr(self, "constant_regions", "mask")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self._accepts_tables
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def no_table_error(caller: str) -> BrainDataError:
    """Return the error of whoever cannot use scans of one time point."""
    return BrainDataError(
        f"{caller} needs scans of several time points. Got a 2-D X, which is read as "
        "scans of one time point. Pass [X] if this is one scan."
    )


def check_scan(values: Any, *, caller: str, n_regions: int) -> np.ndarray:
    """Return one scan as a float array with that many columns, values unchecked."""
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] != n_regions:
        raise BrainDataError(
            f"{caller} needs one scan with {n_regions} regions as columns, as in fit. "
            f"Got shape {array.shape}. Pass one 2-D array, or use transform."
        )
    return array.astype(np.result_type(array.dtype, np.float32))
