"""Which checkpoint to resume from, the last one that was written to its end, and how it is loaded whole."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_logitmix.models import unwrap

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of, with what else it asks of it."""

        model: nn.Module

        def _resolve_method(self) -> None: ...
        def _check_resumed(self, checkpoint: Path) -> None: ...
else:
    _Base = object

logger = logging.getLogger(__name__)


def incomplete_reason(checkpoint: str | Path) -> str | None:
    """What a checkpoint folder lacks, or None if it is complete.

    Trainer writes ``trainer_state.json`` after everything else (and `MixTrainer` waits for all processes before it), so
    a run that is killed while it saves leaves a folder without it, or with a part of it.
    """
    try:
        json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text())
    except FileNotFoundError:
        return f"{TRAINER_STATE_NAME} is missing"
    except ValueError:
        return f"{TRAINER_STATE_NAME} is cut off"
    return None


def load_missing(model: nn.Module, checkpoint: str | Path, missing: Collection[str]) -> None:
    """Load a checkpoint that does not have these tensors under the model's names for them.

    `save_pretrained` leaves out what is tied, and writes the names, and for some architectures the shapes, of a model's
    original release. `from_pretrained` turns them back; Trainer's own ``load_state_dict(strict=False)`` goes on without
    those tensors, with a warning (https://github.com/huggingface/transformers/issues/43701).

    Raises:
        ValueError: if there are tensors that the checkpoint does not have under any name.
    """
    if isinstance(model, PreTrainedModel):
        kind: Any = type(model)
        loaded, info = kind.from_pretrained(
            checkpoint, config=model.config, dtype=model.dtype, output_loading_info=True
        )
        missing = info["missing_keys"]
        if not missing:
            model.load_state_dict(loaded.state_dict())
            return
    raise ValueError(f"checkpoint {Path(checkpoint).name} lacks {', '.join(sorted(missing)[:3])}.")


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The checkpoint with the highest step that is complete, or None; torn ones are named in a warning and skipped."""
    found = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    folders = {path: match for path in Path(output_dir).glob("*") if (match := found.fullmatch(path.name))}
    for path in sorted(folders, key=lambda path: int(folders[path].group(1)), reverse=True):
        if (reason := incomplete_reason(path)) is None:
            return str(path)
        logger.warning("%s was not written to its end (%s): it is skipped.", path.name, reason)
    return None


class ResumeMixin(_Base):
    """Resumes from checkpoints that are whole and of the same training, and loads all of them."""

    _resumed_from: Path | None = None
    _loads_from = ""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`, but a checkpoint that was not written to its end, or of another run, is never loaded.

        Raises:
            ValueError: if the checkpoint to resume from is torn, or none is complete; if it was trained with another
                method, with other options or on other data.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise ValueError(f"resume_from_checkpoint=True: no complete checkpoint in {self.args.output_dir!r}.")
        elif resume_from_checkpoint and (reason := incomplete_reason(resume_from_checkpoint)):
            raise ValueError(
                f"resume_from_checkpoint={resume_from_checkpoint!r} was not written to its end ({reason}): pass an "
                "earlier one, or True for the last that is complete."
            )
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if self._resumed_from is not None:
            self._resolve_method()
            self._check_resumed(self._resumed_from)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._loads_from = resume_from_checkpoint
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._loads_from = str(self.state.best_model_checkpoint)
        super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        if load_result.missing_keys:
            load_missing(unwrap(self.model), self._loads_from, load_result.missing_keys)
        else:
            super()._issue_warnings_after_load(load_result)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:  # an older checkpoint of this step is not complete any more from here on
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # so that trainer_state.json, written next, tells that all is there
