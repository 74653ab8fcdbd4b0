"""How good predictions are."""

from __future__ import annotations

import numpy as np
from _models import LOWEST_PROBABILITY
from sklearn.metrics import (
    accuracy_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)

METRICS = {
    "classification": ("accuracy", "balanced_accuracy", "auroc", "log_loss"),
    "regression": ("r2", "mae", "pearson"),
}
LOWER_IS_BETTER = ("log_loss", "mae")


def classification_scores(
    truth: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    classes: np.ndarray,
) -> dict[str, float]:
    """Return accuracies, AUROC (each class against the rest, mean) and log-loss."""
    codes = np.searchsorted(classes, truth)
    present = np.unique(codes)
    recall = [np.mean(predicted[codes == c] == classes[c]) for c in present]
    auroc = [
        roc_auc_score(codes == c, probability[:, c])
        for c in present
        if not (codes == c).all()
    ]
    of_truth = np.maximum(probability[np.arange(len(codes)), codes], LOWEST_PROBABILITY)
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "balanced_accuracy": float(np.mean(recall)),
        "auroc": float(np.mean(auroc)) if auroc else float("nan"),
        "log_loss": float(-np.log(of_truth).mean()),
    }


def regression_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return R2 (1 is perfect, 0 the mean of the test rows), MAE and Pearson's r."""
    varies = np.ptp(truth) > 0 and np.ptp(predicted) > 0
    pearson = np.corrcoef(truth, predicted)[0, 1] if varies else np.nan
    return {
        "r2": float(r2_score(truth, predicted)) if len(truth) > 1 else float("nan"),
        "mae": float(mean_absolute_error(truth, predicted)),
        "pearson": float(pearson),
    }
