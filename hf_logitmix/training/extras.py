"""What a method learns beside the model (eps, E, a second head): in the optimizer and checkpoints, not in the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer

from hf_logitmix.method import MethodInTraining

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of."""

        model: nn.Module
else:
    _Base = object

FILE_NAME = "hf_logitmix_extras.safetensors"


class ExtrasMixin(_Base):
    """Trains the modules of ``MethodInTraining.learned`` along with the model.

    They stay outside the model, so that its file, its name space and its wrappers know nothing of them. Their
    gradients are averaged over processes here; weights of linear layers decay as the model's do, nothing else decays.
    Gradient clipping looks at the model alone, as it does without them.
    """

    _extras: nn.ModuleDict
    _targets_lr: float | None = None

    def _use_extras(self, method: MethodInTraining) -> None:
        """Take over what a method learns."""
        self._extras = method.learned.to(self.args.device)
        self._targets_lr = method.targets.targets_lr
        if not len(self._extras):
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                f"{method.method} learns parameters beside the model that FSDP and DeepSpeed would leave out of their "
                "optimizer: use DistributedDataParallel (torchrun or accelerate launch without them)."
            )
        if self.optimizer is not None and self.lr_scheduler is not None and not self._created_lr_scheduler:
            raise ValueError(
                f"{method.method} learns parameters beside the model, unknown to a ready-made lr_scheduler: pass "
                "optimizers=(optimizer, None), or set optim and lr_scheduler_type in the arguments."
            )
        with torch.no_grad():
            for tensor in self._extras.state_dict().values():
                tensor.copy_(broadcast(tensor))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        decays = {id(module.weight) for module in self._extras.modules() if isinstance(module, nn.Linear)}
        for name, part in self._extras.items():
            for decay in (True, False):
                new = [p for p in part.parameters() if (id(p) in decays) is decay and id(p) not in known]
                lr = {"lr": self._targets_lr} if name == "targets" and self._targets_lr is not None else {}
                if new:
                    weight_decay = self.args.weight_decay if decay else 0.0
                    optimizer.add_param_group({"params": new, "weight_decay": weight_decay, **lr})
        return optimizer

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self._extras.zero_grad()  # once an optimizer step; Trainer does it for the model's parameters alone
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            for parameter in self._extras.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        return loss

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if len(self._extras) and self.args.should_save:
            save_file(self._extras.state_dict(), Path(output_dir) / FILE_NAME, {"modules": str(self._extras)})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:  # first, for its message where the checkpoint does not fit
            self._load_extras(checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if not self.args.save_only_model:
            self._load_extras(str(self.state.best_model_checkpoint))

    def _load_extras(self, checkpoint: str) -> None:
        path, name = Path(checkpoint) / FILE_NAME, Path(checkpoint).name
        if not len(self._extras) and not path.exists():
            return
        if not path.exists():
            raise ValueError(
                f"checkpoint {name} lacks {FILE_NAME}, without which this method cannot go on: it was saved by another "
                "method, or with save_only_model."
            )
        with safe_open(path, "pt") as file:
            saved = (file.metadata() or {}).get("modules", "")
        if saved != str(self._extras):
            raise ValueError(
                f"checkpoint {name} holds what another method, or one with other options, has learned ({_line(saved)}; "
                f"this one learns {_line(str(self._extras))}): resume with the method that saved it."
            )
        found = load_file(path)
        for key, buffer in self._extras.named_buffers():
            if not torch.equal(found[key].to(buffer), buffer):
                raise ValueError(
                    f"checkpoint {name} was saved with another class_similarity: resume with the one it was saved with."
                )
        self._extras.load_state_dict(found)


def _line(modules: str) -> str:
    return " ".join(modules.split())
