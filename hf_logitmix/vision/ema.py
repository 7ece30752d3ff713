"""An exponential moving average of the weights, kept by timm, beside a Trainer's model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch import nn
from transformers import Trainer, TrainerCallback

from hf_logitmix.vision.wrap import file_state

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of."""

        model: nn.Module
else:
    _Base = object

FILE_NAME = "ema.safetensors"


class EmaMixin(_Base):
    """Averages the weights and buffers after each optimizer step, if the arguments have an ``ema_decay``.

    While a run goes on, evaluation sees the average and training the model itself. Checkpoints hold both:
    ``model.safetensors`` and ``ema.safetensors``. At the end of `train` the model holds the average, with
    ``load_best_model_at_end`` that of the best checkpoint.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._average = _Average()
        super().__init__(*args, **kwargs)
        self.add_callback(self._average)
        if getattr(self.args, "ema_decay", None) is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                "ema_decay averages whole models, which FSDP and DeepSpeed cut up: leave it out, or use "
                "DistributedDataParallel (torchrun or accelerate launch without them)."
            )

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        decay = getattr(self.args, "ema_decay", None)
        if decay is None:
            return super()._inner_training_loop(*args, **kwargs)
        self._average.ema = ModelEmaV3(self.model, decay=decay, use_warmup=self.args.ema_warmup)  # type: ignore[attr-defined]
        output = super()._inner_training_loop(*args, **kwargs)
        self._share_buffers()
        self._swap()
        self._average.ema = None
        return output

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the model's weights and the average."""
        assert self._average.ema is not None
        average = self._average.ema.module.state_dict().values()
        for own, mean in zip(self.model.state_dict().values(), average, strict=True):
            kept = own.clone()
            own.copy_(mean)
            mean.copy_(kept)

    @torch.no_grad()
    def _share_buffers(self) -> None:
        """Give each process the first one's statistics of batches, as DistributedDataParallel does for the model."""
        assert self._average.ema is not None
        for buffer in self._average.ema.module.buffers():
            buffer.copy_(broadcast(buffer))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """A block in which the model holds the average."""
        if self._average.ema is None:
            yield
            return
        self._share_buffers()
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        with self._averaged():
            return super().evaluation_loop(*args, **kwargs)

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self._average.ema is not None and self.args.should_save:
            path = Path(output_dir or str(self.args.output_dir)) / FILE_NAME
            save_file(file_state(self._average.ema.module), path, metadata={"format": "pt"})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self._load_ema(checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_ema(str(self.state.best_model_checkpoint))

    def _load_ema(self, checkpoint: str) -> None:
        if self._average.ema is None:
            return
        path = Path(checkpoint) / FILE_NAME
        if not path.exists():
            raise ValueError(
                f"checkpoint {Path(checkpoint).name} lacks {FILE_NAME}, the average that ema_decay goes on with: it "
                "was saved without ema_decay; start anew, or leave ema_decay out."
            )
        self._average.ema.module.load_state_dict(load_file(path))


class _Average(TrainerCallback):
    """Holds the average, while there is one, and keeps it up to date."""

    def __init__(self) -> None:
        self.ema: ModelEmaV3 | None = None

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.ema is not None:
            self.ema.update(model, step=state.global_step + 1)
