"""Ctrl-C that costs nothing: finish the step, save a checkpoint, stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class SaveOnInterrupt(TrainerCallback):
    """On the first Ctrl-C training saves a checkpoint at the end of its step and stops; a second one stops at once.

    Enter it around the training, so that Ctrl-C is given back however that ends.

    Attributes:
        stopped: whether training ended in this way.
        first_step: the step at which training began, 0 unless it was resumed.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.first_step = 0
        self._asked = False
        self._process = os.getpid()
        self._previous: Any = None

    def __enter__(self) -> SaveOnInterrupt:
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first_step = state.global_step
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._asked_anywhere(args):
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Trainer calls this behind a stop too, where an evaluation would be one that a run left alone never has."""
        if self.stopped and not float(state.epoch or 0).is_integer():
            control.should_evaluate = control.should_save = False
        return control

    def _asked_anywhere(self, args: TrainingArguments) -> bool:
        """Whether any process was asked: all must stop at the same step, or the others would wait for ever."""
        if args.world_size == 1:
            return self._asked
        asked = torch.tensor(int(self._asked), device=args.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked)

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a dataloader worker, which got a copy of this
            return
        self._asked = True
        print("\nCtrl-C: finishing this step, then saving a checkpoint. Once more stops at once.", file=sys.stderr)
        self._restore()
