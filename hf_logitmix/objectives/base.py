"""What every objective takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from hf_logitmix.criteria import RowLoss
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.part import Part
from hf_logitmix.step import Step


class Term(NamedTuple):
    """One term of a loss.

    Attributes:
        rows: FloatTensor[N], a number a row; or a scalar, of what belongs to no row.
        weight: of its mean in the loss.
    """

    rows: Tensor
    weight: float = 1.0


Terms = dict[str, Term]


def total_of(terms: Mapping[str, Term]) -> Tensor:
    """The loss: the weighted sum of the means of its terms."""
    first, *others = (term.weight * term.rows.mean() for term in terms.values())
    return sum(others, first)


class Objective(Part):
    """Which logits are compared with what, and with which weights; a new kind overrides the call.

    Attributes:
        kinds: all that `rows` may ask for in a run.
        needs_distributions: whether targets must be rows that sum to 1.
        takes_pairs_apart: whether it needs pairs that meet twice, with the lams that were drawn for them.
    """

    kinds: frozenset[Rows] = frozenset({"clean"})
    needs_distributions: ClassVar[bool] = False
    takes_pairs_apart: ClassVar[bool] = False

    def rows(self, step: Step) -> Rows:
        """Which rows the forward of this step must make: ``clean``, ``mixed`` or ``both``."""
        (only,) = self.kinds
        return only

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        """The terms of one batch, a number a row; their names are those of the log.

        Where the mixing is off (`hf_logitmix.pairing.RandomPairs`), the output holds clean rows alone, whatever `rows`
        asks for.

        Args:
            output: the logits of the rows that were made.
            labels: of the whole batch.
            loss: the criterion and the targets.
            inputs: the batch, for objectives that show it to another model.
        """
        raise NotImplementedError


def clean_term(output: MixedOutput, labels: Tensor, loss: RowLoss) -> Terms:
    """The loss of the clean rows."""
    assert output.logits is not None
    return {"cls": Term(loss(output.logits, labels))}
