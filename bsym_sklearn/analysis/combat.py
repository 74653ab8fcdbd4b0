"""ComBat: site effects in mean and spread, shrunk towards what features share.

Shape letters: n rows, F features, S sites, Q columns of covariates.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from bsym_sklearn.analysis.design import (
    UNSEEN,
    Design,
    check_features,
    least_squares,
    unseen_error,
)
from bsym_sklearn.exceptions import BrainDataError
from bsym_sklearn.model.layers import check_choice

TOLERANCE = 1e-8  # change of the shrunk effects at which the iteration ends
MAX_ITERATIONS = 1000


class ComBat(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Remove the effect of the site on each feature's mean and spread.

    A feature f of row i at site s is :math:`\alpha_f + c_i B_f + \sigma_f
    (\gamma_{sf} + \delta_{sf} \varepsilon)`. The effects :math:`\gamma, \delta^2` of a
    site are shrunk towards their distribution over the features, by parametric
    empirical Bayes, and

    .. math::
        \hat x = \alpha_f + c_i B_f + \sigma_f
        \frac{(x - \alpha_f - c_i B_f) / \sigma_f - \gamma_{sf}}{\delta_{sf}}

    is returned. Everything comes from the rows of `fit`.

    Parameters
    ----------
    unseen_sites : {"error", "pooled"}, default="error"
        What to do with a site that was not in training: raise, or treat its scans as
        those of an average site (the pooled mean and spread, no effect), which leaves
        them as they are.

    Attributes
    ----------
    sites_ : ndarray of shape (n_sites,)
        Sites of the training rows.
    gamma_, delta_ : ndarray of shape (n_sites, n_features)
        Shrunk effects on the standardised mean and variance.
    mean_, scale_ : ndarray of shape (n_features,)
        Mean of the sites, weighted by their rows, and pooled deviation.
    coefficients_ : ndarray of shape (n_columns, n_features)
        Effects of the covariates, which are kept.
    n_features_in_ : int
        Features F.

    Notes
    -----
    Sites and covariates are metadata, see
    :class:`~bsym_sklearn.analysis.confounds.ConfoundRegressor`. Covariates have to be
    known of test scans too, so the target can never be one. A feature that is constant
    but for site and covariates is left alone, and a single feature, which has no others
    to learn from, is not shrunk.

    References
    ----------
    .. [1] Johnson, Li and Rabinovic (2007). Adjusting batch effects in microarray
       expression data using empirical Bayes methods. Biostatistics 8, 118-127.
    .. [2] Fortin et al. (2018). Harmonization of cortical thickness measurements
       across scanners and sites. NeuroImage 167, 104-120.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sites = np.repeat(["a", "b"], 50)
    >>> X = rng.normal(size=(100, 20)) + 3 * (sites == "b")[:, None]
    >>> X = ComBat().fit_transform(X, sites=sites)
    >>> bool(abs(X[:50].mean() - X[50:].mean()) < 0.05)
    True
    """

    __metadata_request__fit = {"sites": True, "covariates": True}  # noqa: RUF012
    __metadata_request__transform = {"sites": True, "covariates": True}  # noqa: RUF012

    n_features_in_: int

    def __init__(self, *, unseen_sites: str = "error") -> None:
        self.unseen_sites = unseen_sites

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        sites: ArrayLike,
        covariates: ArrayLike | None = None,
    ) -> Self:
        """Learn the effects of the sites.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features of the training rows.
        y : None
            Ignored.
        sites : array-like of shape (n_rows,)
            Site of each row; at least two sites with two rows each.
        covariates : DataFrame or array-like, (n_rows,) or (n_rows, n_covariates)
            What is to be kept, such as age: numbers, or categories in columns of any
            other kind. None keeps nothing in particular.

        Returns
        -------
        self : ComBat

        Raises
        ------
        BrainDataError
            If there are too few sites or rows of one, or a covariate cannot be told
            from the sites.
        ValueError
            If the features are not finite numbers or lengths differ.
        """
        check_choice(self.unseen_sites, UNSEEN, "unseen_sites")
        X = check_features(self, X, reset=True)
        self.sites_, codes = _check_sites(sites)
        check_consistent_length(X, codes)
        self._encoder = None if covariates is None else Design("ComBat", "error")
        kept = np.zeros((len(X), 0))
        if self._encoder is not None and covariates is not None:
            kept = self._encoder.fit(covariates)
            check_consistent_length(X, kept)
        one_hot = np.eye(len(self.sites_))[codes]
        _check_separable(one_hot, kept)
        effects = least_squares(np.hstack([one_hot, kept]), X)
        self.coefficients_ = effects[len(self.sites_) :]
        self.mean_ = one_hot.mean(axis=0) @ effects[: len(self.sites_)]
        residuals = X - np.hstack([one_hot, kept]) @ effects
        self.scale_ = residuals.std(axis=0)
        flat = self.scale_ <= 1e-12 * (1 + np.abs(self.mean_))
        self.scale_[flat] = 1
        standard = (X - self.mean_ - kept @ self.coefficients_) / self.scale_
        shape = (len(self.sites_), X.shape[1])
        self.gamma_, self.delta_ = np.zeros(shape), np.ones(shape)
        for site in range(len(self.sites_)):
            self.gamma_[site, ~flat], self.delta_[site, ~flat] = shrunk_effects(
                standard[codes == site][:, ~flat]
            )
        return self

    def transform(
        self,
        X: ArrayLike,
        *,
        sites: ArrayLike,
        covariates: ArrayLike | None = None,
    ) -> np.ndarray:
        """Remove the effects that were learned.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features; one row is enough.
        sites : array-like of shape (n_rows,)
            Site of each row.
        covariates : DataFrame or array-like, or None
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_rows, n_features)

        Raises
        ------
        BrainDataError
            If a site is new, with ``unseen_sites="error"``.
        ValueError
            If covariates were given in `fit` and are not now, or the reverse.
        """
        check_is_fitted(self)
        X = check_features(self, X, reset=False)
        names = np.asarray(sites).ravel()
        check_consistent_length(X, names)
        codes = pd.Index(self.sites_).get_indexer(names)
        if (codes < 0).any() and self.unseen_sites == "error":
            row = int(np.argmax(codes < 0))
            raise unseen_error("ComBat", "site", names[row], row)
        if (covariates is None) is not (self._encoder is None):
            raise ValueError(
                "ComBat needs the same covariates in fit and transform. Got them in "
                f"{'transform' if self._encoder is None else 'fit'} only."
            )
        expected = np.broadcast_to(self.mean_, X.shape)
        if self._encoder is not None and covariates is not None:
            kept = self._encoder.transform(covariates)
            check_consistent_length(X, kept)
            expected = expected + kept @ self.coefficients_
        known = (codes >= 0)[:, None]
        gamma = np.where(known, self.gamma_[codes], 0)
        delta = np.where(known, self.delta_[codes], 1)
        standard = (X - expected) / self.scale_
        return expected + self.scale_ * (standard - gamma) / np.sqrt(delta)

    def fit_transform(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        sites: ArrayLike,
        covariates: ArrayLike | None = None,
    ) -> np.ndarray:
        """Learn from the rows and transform them, see `fit`."""
        self.fit(X, y, sites=sites, covariates=covariates)
        return self.transform(X, sites=sites, covariates=covariates)


def shrunk_effects(standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the posterior effects of one site on means and variances.

    With :math:`\hat\gamma, \hat\delta^2` the means and variances of the features and
    :math:`\bar\gamma, \tau^2` and :math:`a, b` their normal and inverse gamma priors
    over the features, solves [1]_

    .. math::
        \gamma = \frac{n \tau^2 \hat\gamma + \delta^2 \bar\gamma}{n \tau^2 + \delta^2},
        \qquad
        \delta^2 = \frac{b + \frac12 \sum_i (z_i - \gamma)^2}{\frac n2 + a - 1}.

    Parameters
    ----------
    standard : ndarray of shape (n_rows, n_features)
        Standardised features of the site's rows, at least two.

    Returns
    -------
    gamma, delta : ndarray of shape (n_features,)
        Effects on the mean and on the variance.

    References
    ----------
    .. [1] Johnson, Li and Rabinovic (2007). Biostatistics 8, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> gamma, delta = shrunk_effects(np.array([[0.0, 1.0], [2.0, 3.0]]))
    >>> gamma.round(2), delta.round(2)
    (array([1.33, 1.67]), array([2., 2.]))
    """
    n_rows, n_features = standard.shape
    gamma_hat, delta_hat = standard.mean(axis=0), standard.var(axis=0, ddof=1)
    if not delta_hat.any():  # equal rows: nothing is known of the scale
        return gamma_hat, np.ones(n_features)
    if n_features < 2:
        return gamma_hat, delta_hat
    centre, spread = gamma_hat.mean(), gamma_hat.var(ddof=1)
    m = delta_hat.mean()
    v = max(delta_hat.var(ddof=1), 1e-12 * m**2)  # equal variances: a certain prior
    a, b = (2 * v + m**2) / v, (m * v + m**3) / v
    gamma, delta = gamma_hat, delta_hat
    for _ in range(MAX_ITERATIONS):
        before = (gamma, delta)
        weight = n_rows * spread
        gamma = (weight * gamma_hat + delta * centre) / (weight + delta)
        squares = ((standard - gamma) ** 2).sum(axis=0)
        delta = (b + squares / 2) / (n_rows / 2 + a - 1)
        change = max(np.abs(gamma - before[0]).max(), np.abs(delta - before[1]).max())
        if change < TOLERANCE:
            break
    return gamma, delta


def _check_sites(sites: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the sites and the number of each row's site."""
    names = pd.Series(np.asarray(sites).ravel())
    if names.isna().any():
        raise BrainDataError(
            "ComBat needs a site in every row. Got none, first in scan "
            f"{int(names.isna().argmax())}. Fill it in or leave the scan out."
        )
    found, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    if len(found) < 2 or counts.min() < 2:
        least = int(counts.argmin())
        raise BrainDataError(
            "ComBat needs at least 2 sites and 2 scans of each. Got "
            f"{len(found)} sites, and {counts[least]} of {found.tolist()[least]!r}. "
            "Leave small sites out."
        )
    return found, codes


def _check_separable(one_hot: np.ndarray, kept: np.ndarray) -> None:
    """Refuse covariates whose effect cannot be told from that of the sites."""
    rank = np.linalg.matrix_rank
    if kept.shape[1] and rank(np.hstack([one_hot, kept])) < one_hot.shape[1] + rank(
        kept
    ):
        raise BrainDataError(
            "ComBat needs covariates that vary within sites. Got one that follows from "
            "the site. Leave it out."
        )
