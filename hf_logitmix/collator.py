"""A data collator that brings the plan along with the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hf_logitmix.digest import digest
from hf_logitmix.methods import Method, as_method


class MixCollator:
    """Wraps any collator and adds ``partner`` (LongTensor[M]) and ``lam`` (FloatTensor[M]) to its batch.

    For training loops of your own; `MixTrainer` draws the plan itself unless the batch brings one. The draw is a
    function of ``seed`` and of what is in the batch, so that neither the number of dataloader workers nor
    prefetching nor a resumed run changes it. A batch that comes back with the very same examples in the same order
    gets the same plan again: shuffle. The plan is for the batch as it leaves the collator, so it does not go with a
    loader that cuts batches up between processes (``split_batches``, ``dispatch_batches``).

    Example:
        >>> loader = DataLoader(data, collate_fn=MixCollator(DataCollatorWithPadding(tokenizer)))  # doctest: +SKIP
        >>> for batch in loader:  # doctest: +SKIP
        ...     labels, plan = batch.pop("labels"), MixPlan(batch.pop("partner"), batch.pop("lam"))
        ...     output = mixed_forward(model, batch, plan)
        ...     loss = logitmix_loss(output.logits, output.mixed_logits, labels, output.plan).total

    Args:
        collator: gives a dict of tensors with a row an example.
        method: a name in `METHODS` or a `Method`; its mixing draws the plan.
        seed: of the draws.
    """

    def __init__(
        self, collator: Callable[[Any], Mapping[str, Any]], method: str | Method = "logitmix", seed: int = 0
    ) -> None:
        self.collator = collator
        self.method = as_method(method)
        self.seed = seed

    def __call__(self, features: Any) -> dict[str, Any]:
        batch = dict(self.collator(features))
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor) and value.dim()}
        if not tensors:
            raise ValueError(
                "the wrapped collator gave no tensors: pass one that returns them, such as default_data_collator."
            )
        generator = torch.Generator().manual_seed(int.from_bytes(digest(str(self.seed), [tensors]), "big"))
        plan = self.method.mixing.plan(len(next(iter(tensors.values()))), generator=generator)
        return {**batch, "partner": plan.partner, "lam": plan.lam}
