"""The examples that do not fill the last batch of an epoch: who leaves them out, and what batch statistics see."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from accelerate.data_loader import DataLoaderDispatcher
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, DataLoader, IterableDataset
from transformers import Trainer

from hf_logitmix.methods import Method
from hf_logitmix.models import evaluating
from hf_logitmix.training.training_set import TrainingSet

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of."""

        model: nn.Module
        method: Method

        def _training_set(self) -> TrainingSet: ...
else:
    _Base = object

logger = logging.getLogger(__name__)


class Epoch(NamedTuple):
    """What an epoch makes of its examples.

    Attributes:
        smallest: the smallest batch that a process reads; 0 where it reads none.
        left_out: examples that no process reads.
    """

    smallest: int
    left_out: int


def batches_of(
    count: int,
    batch_size: int,
    processes: int = 1,
    *,
    drop_last: bool = False,
    even_batches: bool = True,
    split_batches: bool = False,
    dispatch_batches: bool = False,
) -> Epoch:
    """How ``count`` examples are cut into batches; the options are accelerate's.

    Several processes read full batches alone unless ``even_batches`` is off: examples of the beginning fill up the last
    ones. With ``dispatch_batches`` the first process reads for all, and deals the last examples out evenly.

    Args:
        count: examples.
        batch_size: of a process; with ``split_batches`` that of all.
        processes: that read together.
    """
    together = batch_size if split_batches else batch_size * processes
    each, rest = together // processes, count % together
    if drop_last:
        return Epoch(each if count >= together else 0, rest)
    if rest == 0:
        return Epoch(each, 0)
    if processes > 1 and dispatch_batches:
        return Epoch(-(-rest // processes), 0)
    return Epoch(each if processes > 1 and even_batches else rest % each or each, 0)


def values_of_one(model: nn.Module, batch: dict[str, Any]) -> dict[str, int]:
    """From how many values a channel each batch normalisation would take its statistics, were one example the batch."""
    values: dict[str, int] = {}

    def note(name: str) -> Any:
        return lambda module, inputs: values.__setitem__(name, inputs[0].numel() // inputs[0].shape[1])

    hooks = [m.register_forward_pre_hook(note(n)) for n, m in model.named_modules() if isinstance(m, _BatchNorm)]
    try:
        with evaluating(model):
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return values


class LastBatchMixin(_Base):
    """Says before training what becomes of the examples that do not fill the last batch of an epoch.

    ``dataloader_drop_last`` leaves them out of training, with a line in the log; evaluation sees every example, which
    with Trainer alone it does not. A batch of one example is an error where a batch normalisation would see a single
    value, from which no statistics can be taken, and a warning at any other batch normalisation.
    """

    def get_train_dataloader(self) -> DataLoader:
        loader = super().get_train_dataloader()
        if self._train_batch_size == 1 and self.method.mixes:
            raise ValueError(
                "per_device_train_batch_size=1: an example would meet itself alone, so nothing would be mixed: pass at "
                "least 2 (with fewer gradient_accumulation_steps a step stays as large), or method='vanilla'."
            )
        sampler, data = loader.batch_sampler, loader.dataset
        if isinstance(sampler, BatchSampler) and isinstance(data, Sized) and not isinstance(data, IterableDataset):
            self._check_last_batch(sampler, len(data), isinstance(loader, DataLoaderDispatcher))
        return loader

    def _check_last_batch(self, sampler: BatchSampler, count: int, is_dispatched: bool) -> None:
        size, processes, accelerator = sampler.batch_size, self.args.world_size, self.accelerator
        smallest, left_out = batches_of(
            count,
            size,
            processes,
            drop_last=sampler.drop_last,
            even_batches=accelerator.even_batches,
            split_batches=accelerator.split_batches,
            dispatch_batches=is_dispatched,
        )
        if not smallest:
            most = count if accelerator.split_batches else count // processes
            each = f" on each of {processes} processes" if processes > 1 else ""
            raise ValueError(
                f"train_dataset has {count} examples, fewer than a batch of {size}{each}, so that "
                "dataloader_drop_last=True leaves all of them out: pass dataloader_drop_last=False, or at most "
                f"per_device_train_batch_size={most}."
            )
        if left_out and self.is_world_process_zero():
            logger.warning(
                "%d of %d training examples do not fill a batch and are left out of each epoch (dataloader_drop_last).",
                *(left_out, count),
            )
        if smallest == 1 and self.method.mixes:
            logger.warning(
                "the last batch of an epoch holds one example, which meets itself and is not mixed: "
                "dataloader_drop_last=True leaves it out."
            )
        if smallest == 1:
            self._check_statistics_of_one(size)

    def _check_statistics_of_one(self, size: int) -> None:
        norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm)]
        if not norms or (self.args.world_size > 1 and all(isinstance(m, nn.SyncBatchNorm) for m in norms)):
            return
        fix = "dataloader_drop_last=True, or " if size > 1 else ""
        fix = f"pass {fix}another per_device_train_batch_size than {size}."
        values: dict[str, int] = {}
        if not self.is_deepspeed_enabled:
            with torch.random.fork_rng(devices=[]), self.compute_loss_context_manager():
                values = values_of_one(self.model, next(self._training_set().batches(np.arange(1))))
        if single := [name for name, number in values.items() if number == 1]:
            raise ValueError(
                f"a batch of each epoch holds one example, of which {single[0]} sees a single value a channel, and "
                f"batch normalisation has no statistics of one: {fix}"
            )
        warnings.warn(
            f"a batch of each epoch holds one example, and {type(norms[0]).__name__} takes the statistics of a batch "
            f"from it alone: {fix}",
            UserWarning,
            stacklevel=2,
        )

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        with self._whole():
            return super().get_eval_dataloader(*args, **kwargs)

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        with self._whole():
            return super().get_test_dataloader(*args, **kwargs)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """A block in which loaders keep their last batch."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = drop_last
