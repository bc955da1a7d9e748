"""How far a model's probabilities can be believed: negative log-likelihood and calibration error. No torch.

Both are of the softmax of the logits, or with several labels of the sigmoid of each, in float64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
_ROWS = 2**16  # at a time: the probabilities of all rows may be larger than the memory


def calibration(logits: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    """``nll`` and ``ece`` of logits [N, C] and labels, [N] classes or [N, C] in {0, 1}; nothing of no rows.

    nll: mean over the rows of −log p(true class); with several labels, mean over all label entries of their binary one.
    It may exceed 1. ece: expected calibration error in [0, 1], Guo et al., On Calibration of Modern Neural Networks,
    ICML 2017, eq. 3: Σ_m |B_m|/n · |acc(B_m) − conf(B_m)| over 15 bins of equal width of the confidence, which is the
    probability of what is predicted (bin m: (m−1)/15 < confidence ≤ m/15). With several labels every label entry is a
    binary prediction of its own, made at probability 0.5 whatever the protocol's decision is, of confidence p or 1−p.
    """
    if not len(logits):
        return {}
    loss, entries = 0.0, 0
    counts, rights, confidences = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    for start in range(0, len(logits), _ROWS):
        part = np.asarray(logits[start : start + _ROWS], dtype=np.float64)
        found = (_of_labels if y.ndim == 2 else _of_classes)(part, y[start : start + _ROWS])
        losses, confidence, right = map(np.ravel, found)
        loss, entries = loss + losses.sum(), entries + len(losses)
        bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        counts += np.bincount(bins, minlength=BINS)
        rights += np.bincount(bins, weights=right, minlength=BINS)
        confidences += np.bincount(bins, weights=confidence, minlength=BINS)
    # |B_m|/n · |acc − conf| is the difference of two sums over the bin; rounding may put them a hair beyond 1
    ece = min(float(np.abs(rights - confidences).sum() / counts.sum()), 1.0)
    return {"ece": ece, "nll": max(float(loss / entries), 0.0)}


def _of_classes(logits: NDArray[np.float64], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of each row: −log p of its class, the largest probability, whether that is at its class."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    of_true = np.take_along_axis(shifted, y[:, None].astype(np.int64), axis=1)[:, 0]
    return total - of_true, np.exp(-total), (logits.argmax(axis=1) == y).astype(np.float64)


def _of_labels(logits: NDArray[np.float64], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of each label entry: its binary −log p, the probability of what is predicted, whether that is right."""
    true = y > 0.5
    towards = np.where(true, logits, -logits)
    confidence = 1 / (1 + np.exp(-np.abs(logits)))
    return np.logaddexp(0.0, -towards), confidence, ((logits >= 0) == true).astype(np.float64)
