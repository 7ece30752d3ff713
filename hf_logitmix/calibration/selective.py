"""Selective prediction: how well confidence tells right answers from wrong ones.

A model that may decline answers its most confident examples first. No threshold parts examples of equal confidence, so
they are taken together: what a metric needs between two of them is the mean over all their orders, and no value depends
on the order in which the rows came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hf_logitmix.calibration.rows import Floats


@dataclass(frozen=True)
class Ranking:
    """How many are answered, and how many of these wrongly, at each threshold; the first entry is none of them.

    Attributes:
        answered: [G + 1] rising from 0 to N, for G different confidences.
        wrong: [G + 1] how many of them are wrong.
    """

    answered: Floats
    wrong: Floats

    @staticmethod
    def of(confidence: Floats, hits: Floats) -> Ranking:
        """Rank by confidence [N], with hits [N] 1 where an example is right, else 0."""
        (found,) = rankings(confidence, hits, [np.ones(len(hits))])
        return found

    @property
    def count(self) -> int:
        return int(self.answered[-1])

    @cached_property
    def risk(self) -> Floats:
        """[N] the share of wrong answers among the i most confident examples, i = 1..N."""
        number = np.arange(1, self.count + 1)
        return np.interp(number, self.answered, self.wrong) / number


def rankings(confidence: Floats, hits: Floats, drawn: Iterable[np.ndarray]) -> Iterator[Ranking]:
    """`Ranking.of` samples of the examples, each [N] how often it holds an example; they are sorted once for all."""
    order = np.argsort(-confidence, kind="stable")
    falling, misses = confidence[order], 1 - hits[order]
    last = np.flatnonzero(np.append(falling[1:] < falling[:-1], True))
    for counts in drawn:
        times = counts[order]
        answered, wrong = (np.append(0.0, np.cumsum(of)[last]) for of in (times, times * misses))
        yield Ranking(answered, wrong)


def aurc(ranking: Ranking) -> float:
    r"""Area under the risk-coverage curve: :math:`\frac1N \sum_i \mathrm{risk}_i` (Geifman and El-Yaniv, 2018)."""
    return float(ranking.risk.mean())


def augrc(ranking: Ranking) -> float:
    r"""Area under the generalized risk-coverage curve (Traub et al., 2024).

    The generalized risk is the share of all examples that is answered and wrong; its curve over the coverage has
    straight lines between thresholds, so that the area is :math:`(1 - \mathrm{AUROC})\, a (1 - a) + (1 - a)^2 / 2` for
    an accuracy a.
    """
    steps, heights = np.diff(ranking.answered), ranking.wrong[1:] + ranking.wrong[:-1]
    return float((steps * heights).sum() / (2 * ranking.count**2))


def auroc(ranking: Ranking) -> float:
    """How often a right answer has more confidence than a wrong one; equal confidence counts half.

    Where all answers are right, or all wrong, there is nothing to tell apart and it is 0.5, never NaN.
    """
    wrong, right = ranking.wrong, ranking.answered - ranking.wrong
    if not wrong[-1] or not right[-1]:
        return 0.5
    pairs = (np.diff(wrong) * (right[1:] + right[:-1])).sum() / 2
    return float(pairs / (wrong[-1] * right[-1]))


def coverage_at_risk(ranking: Ranking, risk: float) -> float:
    """The largest share of the examples that a threshold of confidence can answer with a risk of at most ``risk``."""
    answered, wrong = ranking.answered[1:], ranking.wrong[1:]
    allowed = answered[wrong / answered <= risk]
    return float(allowed.max(initial=0) / ranking.count)
