"""A data collator that brings the plan along with the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hf_logitmix.digest import digest
from hf_logitmix.method import Method, MethodInTraining
from hf_logitmix.methods import as_method
from hf_logitmix.pairing.plan import MixPlan, unmixed
from hf_logitmix.step import Step


class MixCollator:
    """Wraps any collator and adds ``partner`` (LongTensor[M]), ``lam`` (FloatTensor[M]) and, where labels
    are mixed with another lam, ``label_lam`` (FloatTensor[M]) to its batch.

    For training loops of your own; `MixTrainer` draws the plan itself unless the batch brings one. The draw is a
    function of ``seed`` and of what is in the batch, so that neither the number of dataloader workers nor
    prefetching nor a resumed run changes it. A batch that comes back with the very same examples in the same order
    gets the same plan again: shuffle. The plan is for the batch as it leaves the collator, so it does not go with a
    loader that cuts batches up between processes (``split_batches``, ``dispatch_batches``).

    Example:
        >>> loader = DataLoader(data, collate_fn=MixCollator(DataCollatorWithPadding(tokenizer)))  # doctest: +SKIP
        >>> for batch in loader:  # doctest: +SKIP
        ...     labels, plan = batch.pop("labels"), take_plan(batch)
        ...     output = mixed_forward(model, batch, plan)
        ...     loss = logitmix_loss(output.logits, output.mixed_logits, labels, output.plan).total

    Args:
        collator: gives a dict of tensors with a row an example.
        method: a name in `METHODS`, a `Method` or, where its pairing looks at the training set, what the method's
            ``setup`` returned; its pairing draws the plan.
        seed: of the draws.
    """

    def __init__(
        self,
        collator: Callable[[Any], Mapping[str, Any]],
        method: str | Method | MethodInTraining = "logitmix",
        seed: int = 0,
    ) -> None:
        self.collator = collator
        self.seed = seed
        self.method = method.method if isinstance(method, MethodInTraining) else as_method(method)
        self.pairing = method.pairing if isinstance(method, MethodInTraining) else self.method.pairing
        if self.pairing.off_after < 1:
            raise ValueError(
                "off_after needs to know how far training is, which a collator does not: let MixTrainer draw the plan."
            )

    def __call__(self, features: Any) -> dict[str, Any]:
        batch = dict(self.collator(features))
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor) and value.dim()}
        if not tensors:
            raise ValueError(
                "the wrapped collator gave no tensors: pass one that returns them, such as default_data_collator."
            )
        inputs = {name: value for name, value in tensors.items() if name != "labels"}
        # a step that is told by what is in the batch; where in training it stands is not known here
        step = Step(index=0, max_steps=0, seed=int.from_bytes(digest(str(self.seed), [tensors]), "big"))
        if self.method.mixes:
            plan = self.pairing(inputs or tensors, tensors.get("labels"), step)
        else:
            plan = unmixed(next(iter(tensors.values())))
        brought = {"partner": plan.partner, "lam": plan.lam, "label_lam": plan.label_lam}
        return {**batch, **{name: value for name, value in brought.items() if value is not None}}


def take_plan(batch: dict[str, Any]) -> MixPlan | None:
    """Take ``partner``, ``lam`` and ``label_lam`` out of a batch; None where it brings no plan.

    Raises:
        ValueError: for a batch that brings a part of one.
    """
    found = {name: batch.pop(name) for name in MixPlan._fields if name in batch}
    if not found:
        return None
    if not {"partner", "lam"} <= found.keys():
        raise ValueError(f"the batch brings {' and '.join(found)} alone: pass both `partner` and `lam`, or neither.")
    return MixPlan(**found)
