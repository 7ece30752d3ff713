"""The rehearsal of a training run, and what it settles: the same on all processes and after a resumption."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from hf_logitmix.hub.provenance import FILE_NAME, masks_of, with_masks
from hf_logitmix.method import Method, MethodInTraining
from hf_logitmix.mixing import Linear, Mixing
from hf_logitmix.modalities.masks import Masks, have_masks
from hf_logitmix.models import unwrap
from hf_logitmix.training.rehearsal import rehearse

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of, with what else it asks of it."""

        model: nn.Module
        method: Method
        _in_training: MethodInTraining | None
        _record: dict[str, Any] | None
        _resumed_from: Path | None

        @property
        def method_in_training(self) -> MethodInTraining: ...
else:
    _Base = object

logger = logging.getLogger(__name__)


class RehearsalMixin(_Base):
    """Tries the mixing before the first step, settles `Linear.masks` where it is None, and says in the record how."""

    _is_rehearsed = False
    _masks_are_settled = False

    def _rehearse(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> None:
        """Try the mixing once a training run, on the first batch that has two rows; every process does it by itself.

        Several processes do it together in their first step, because they have to agree on what they found.
        """
        if self._is_rehearsed or (len(labels) < 2 and self.args.world_size == 1):
            return
        self._is_rehearsed = True
        if not self.method.mixes:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            logger.warning(
                "FSDP and DeepSpeed cut up the model, so the mixing is not tried before training, and layers below a "
                "mix run on mixed rows too."
            )
            self._begin_masks(is_tried=False)
            return
        mixing, criterion = self.method_in_training.mixing, self.method.criterion
        kinds = self.method.objective.kinds - {"clean"}
        if self._masks_are_settled:  # by the checkpoint that is gone on from: not to be tried again
            mixing = replace(mixing, masks="union")  # type: ignore[type-var]
        self._end_masks([rehearse(model, inputs, mixing, rows, labels, criterion) for rows in sorted(kinds)])

    def _masks_are_open(self) -> bool:
        mixing = self.method.mixing
        return isinstance(mixing, Linear) and mixing.masks is None and have_masks(mixing.level, unwrap(self.model))

    def _begin_masks(self, is_tried: bool) -> None:
        """Before the first step: as in the checkpoint that is resumed from, or the union where nothing is tried."""
        self._masks_are_settled = False
        if not self._masks_are_open():
            return
        path = None if self._resumed_from is None else self._resumed_from / FILE_NAME
        if path is not None and path.exists() and (before := masks_of(json.loads(path.read_text(encoding="utf-8")))):
            self._settle_masks(before)
        elif not is_tried:
            logger.warning("Nothing is tried before training, so masks of texts of unequal length meet as their union.")
            self._settle_masks("union")

    def _end_masks(self, found: Iterable[Mixing]) -> None:
        """After the rehearsals of this process: soft if all of them on all processes found that."""
        if not self._masks_are_open():
            return
        is_soft = [isinstance(mixing, Linear) and mixing.masks == "soft" for mixing in found]
        votes = torch.tensor([float(bool(is_soft) and all(is_soft))], device=self.args.device)
        self._settle_masks("soft" if self.accelerator.gather(votes).min() > 0 else "union")

    def _settle_masks(self, masks: Masks) -> None:
        self.method = self.method.with_options(mixing__masks=masks)
        self._masks_are_settled = True
        if self._in_training is not None:
            self._in_training = replace(self._in_training, method=self.method, mixing=self.method.mixing)
        if self._record is not None:  # a step outside of `train` leaves none
            self._record = with_masks(self._record, masks)
