"""What the five parts of a method have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import nn

from hf_logitmix.papers import Paper

if TYPE_CHECKING:
    from hf_logitmix.training.training_set import TrainingSet


EQUATION_NAMES = (  # between the delimiters that the Hub renders inside of a line
    r"\\(z\\) are the logits of an input and \\(\tilde z\\) those of a mixed one, \\(\pi\\) is the partner, "
    r"\\(\lambda\\) the share of the input, \\(T_y\\) the target row of label \\(y\\), and \\(H\\) the criterion."
)


class LabelSpec(NamedTuple):
    """What the labels of a model are.

    Attributes:
        num_labels: K, the number of its outputs.
        problem_type: by the names of transformers: ``single_label_classification``, ``multi_label_classification`` or
            ``regression``.
        soft: whether the label of an example is a row of K probabilities of classes, as far as that is known.
    """

    num_labels: int
    problem_type: str
    soft: bool = False


class Part:
    """One of the five choices of a `Method`: options, and what they mean.

    Its life in a training run: `check` before anything else, `setup` once the training set is known, `install` around
    the training loop, and the call for each batch. Nothing is stored in it on the way: what is found or learned
    belongs to what `setup` returns.

    Attributes:
        learned: the module that holds parameters learned along with the model, or None.
        papers: where it is from.
        equation: what it does, in LaTeX, for cards; `EQUATION_NAMES` says what the letters are.
    """

    learned: nn.Module | None = None
    papers: tuple[Paper, ...] = ()
    equation: ClassVar[str] = ""

    def check(self, model: nn.Module, labels: LabelSpec) -> None:
        """Raise ValueError where this cannot train this model on these labels."""

    def setup(self, training_set: TrainingSet) -> Any:
        """What trains: this part itself, or another with everything found and made that depends on the data."""
        return self

    def install(self, model: nn.Module) -> AbstractContextManager[Any]:
        """What must be on the model all through training, before it is compiled: a block around the training loop."""
        return nullcontext()
