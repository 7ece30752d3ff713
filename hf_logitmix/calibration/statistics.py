"""What all metrics are made of: one pass over the rows, and no array of N x K numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hf_logitmix.calibration.rows import Floats, Ints, Rows
from hf_logitmix.calibration.selective import Ranking


@dataclass(frozen=True)
class Bins:
    """Of each bin, the share of the examples and two means; the means of an empty bin are 0."""

    weight: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def gap(self) -> Floats:
        return np.abs(self.accuracy - self.confidence)

    @property
    def error(self) -> float:
        """The mean gap, by the shares."""
        return float((self.weight * self.gap).sum())


@dataclass(frozen=True)
class Statistics:
    """Of N examples of K classes.

    Attributes:
        confidence: [N] the highest probability of each example.
        hits: [N] 1 where it is the label's, else 0.
        nll, brier: means over the examples.
        n_bins: B, the number of bins.
        class_p: [K, B] the sum of the probabilities of class k that lie in bin b.
        class_hits: [K, B] how many of these examples have the label k.
    """

    confidence: Floats
    hits: Floats
    nll: float
    brier: float
    n_bins: int
    class_p: Floats
    class_hits: Floats

    @cached_property
    def bins(self) -> Bins:
        """Bins of equal width."""
        index = bin_of(self.confidence, self.n_bins)
        return Bins(*bin_means(self.confidence, self.hits, index, self.n_bins))

    @cached_property
    def bins_of_equal_mass(self) -> Bins:
        """The sorted confidences in ``n_bins`` parts; equal ones that are split bring each part their mean accuracy."""
        order = np.argsort(self.confidence, kind="stable")
        confidence = self.confidence[order]
        same = np.cumsum(np.diff(confidence, prepend=confidence[0]) > 0)
        hits = (np.bincount(same, weights=self.hits[order]) / np.bincount(same))[same]
        parts = np.arange(self.n_bins)
        sizes = len(order) // self.n_bins + (parts < len(order) % self.n_bins)
        return Bins(*bin_means(confidence, hits, np.repeat(parts, sizes), self.n_bins))

    @cached_property
    def class_errors(self) -> Floats:
        """[K] the calibration error of the probabilities of each class."""
        return np.abs(self.class_hits - self.class_p).sum(1) / len(self.hits)

    @cached_property
    def ranking(self) -> Ranking:
        return Ranking.of(self.confidence, self.hits)


def statistics_of(rows: Rows, n_bins: int) -> Statistics:
    """Read all rows once.

    Most probabilities of many classes lie in the first bin, and at most ``n_bins`` of a row do not: only these are
    looked up and counted, and the first bin is what they leave of each class's sum.

    Raises:
        ValueError: for NaN logits, and n_bins < 1.
    """
    _check(n_bins)
    count, classes = len(rows), rows.num_classes
    confidence, hits = np.empty(count), np.empty(count)
    nll, brier = np.empty(count), np.empty(count)
    class_p, class_hits = np.zeros((classes, n_bins)), np.zeros((classes, n_bins))
    class_sum = np.zeros(classes)
    for of, z, y, soft in rows.blocks():
        each = np.arange(len(y))
        top = z.argmax(1)
        z -= z[each, top][:, None]
        p = np.exp(z)
        total = p.sum(1)
        p /= total[:, None]
        confidence[of], hits[of] = p[each, top], top == y
        own = z[each, y] if soft is None else np.einsum("ij,ij->i", soft, z)
        mass = 1.0 if soft is None else soft.sum(1)
        nll[of] = mass * np.log(total) - own

        class_sum += p.sum(0)
        row, column = np.nonzero(p > 1 / n_bins)
        values = p[row, column]
        np.add.at(class_p, (column, bin_of(values, n_bins)), values)
        np.add.at(class_hits, (y, bin_of(p[each, y], n_bins)), 1.0)

        if soft is None:
            p[each, y] -= 1
        else:
            p -= soft
        brier[of] = np.einsum("ij,ij->i", p, p)
    class_p[:, 0] += class_sum - class_p.sum(1)
    return Statistics(confidence, hits, float(nll.mean()), float(brier.mean()), n_bins, class_p, class_hits)


def bin_of(confidence: Floats, n_bins: int) -> Ints:
    """Index of the equal-width bin (lo, hi] of each confidence; 0 belongs to the first bin, 1 to the last."""
    _check(n_bins)
    upper_edges = np.arange(1, n_bins) / n_bins
    return np.searchsorted(upper_edges, confidence, side="left").astype(np.int64)


def bin_means(confidence: Floats, hits: Floats, index: Ints, n_bins: int) -> tuple[Floats, Floats, Floats]:
    """Share of the examples, mean confidence and mean of ``hits`` in each bin; the means of an empty bin are 0."""
    count = np.bincount(index, minlength=n_bins)
    divisor = np.maximum(count, 1)
    mean_confidence = np.bincount(index, weights=confidence, minlength=n_bins) / divisor
    return count / len(index), mean_confidence, np.bincount(index, weights=hits, minlength=n_bins) / divisor


def _check(n_bins: int) -> None:
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins}: pass at least one bin.")
