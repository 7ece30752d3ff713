"""Ctrl-C that costs nothing: finish the step, save a checkpoint, stop."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class SaveOnInterrupt(TrainerCallback):
    """On the first Ctrl-C training saves a checkpoint at the end of its step and stops; a second one stops at once.

    Attributes:
        stopped: whether training ended in this way.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._asked = False
        self._previous: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._asked:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Give Ctrl-C back to whoever had it before."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self._asked = True
        print("\nCtrl-C: finishing this step, then saving a checkpoint. Once more stops at once.", file=sys.stderr)
        self.restore()
