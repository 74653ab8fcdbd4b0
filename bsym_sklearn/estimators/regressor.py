"""BrainSymphony as a regressor."""

from __future__ import annotations

from bsym_sklearn.estimators.supervised import BaseSupervised
from bsym_sklearn.estimators.targets import ScanRegressorMixin


class BrainSymphonyRegressor(ScanRegressorMixin, BaseSupervised):
    """Predict a continuous target with a BrainSymphony model.

    The target is standardised inside `fit`; the loss is the squared error.
    Parameters and attributes that are not listed are those of
    :class:`BrainSymphonyEmbedder`.

    Parameters
    ----------
    pretrained, strategy, pretrain_epochs, layer_decay, temporal_tokens, \
temporal_kernel, readouts, head_dropout, pooling, max_epochs, validation_fraction
        See :class:`BrainSymphonyClassifier`.

    Attributes
    ----------
    y_mean_, y_scale_ : float
        Mean and standard deviation of the target in `fit`.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314.

    Examples
    --------
    >>> from bsym_sklearn import BrainSymphonyRegressor
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(n_scans=12, n_regions=5, n_timepoints=40).data
    >>> age = BrainSymphonyRegressor(dim=8, depth=1, max_epochs=2, random_state=0)
    >>> age.fit(X, X["age"]).predict(X).shape
    (12,)
    """
