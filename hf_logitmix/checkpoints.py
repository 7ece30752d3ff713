"""Which checkpoint to resume from: the last one that was written to its end."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)


def why_torn(checkpoint: str | Path) -> str | None:
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
        if (reason := why_torn(path)) is None:
            return str(path)
        logger.warning("%s was not written to its end (%s): it is skipped.", path.name, reason)
    return None
