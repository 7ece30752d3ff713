"""What test_launch.py starts under torchrun: train with an average of the weights, and save each process's own.

torchrun --nproc_per_node 2 -m helpers.launched.ema OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from helpers.images import Tiny, image_arguments, images, trainer_of
from hf_logitmix.training.command_line import leave_together


class Look(TrainerCallback):
    """Keeps what the statistics of batches are in a process before its first evaluation."""

    def __init__(self) -> None:
        self.mean = torch.empty(0)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.mean = model.module.norm.running_mean.clone()


def main() -> None:
    folder = Path(sys.argv[1])
    options = {"opt": "sgd", "ema_decay": 0.5, "max_steps": 3, "per_device_train_batch_size": 2, "no_aug": True}
    trainer = trainer_of(Tiny(), image_arguments(folder, **options), eval_dataset=images())
    look = Look()
    trainer.add_callback(look)
    trainer.train()
    found = {"model": trainer.model.module.state_dict(), "statistics": look.mean}
    torch.save(found, folder / f"{trainer.args.process_index}.pt")
    leave_together()


if __name__ == "__main__":
    main()
