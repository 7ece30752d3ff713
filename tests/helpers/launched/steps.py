"""What test_launch.py starts, alone or under torchrun or accelerate: train with several methods and save what came out.

torchrun --nproc_per_node 2 -m helpers.launched.steps OUTPUT PER_DEVICE_BATCH ACCUMULATION ACCELERATOR_CONFIG METHOD ...

The accelerator_config is JSON. Where it is empty the batches bring their partners; else each process draws its own.
"soft METHOD" trains on soft labels, "METHOD at LEVEL" mixes there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from helpers.data import data_without_types
from helpers.models import tiny_bert
from helpers.soft import soft_data
from helpers.training import InOrder, arguments, collate_pairs, weights
from hf_logitmix import get_method
from hf_logitmix.metrics import calibration_of
from hf_logitmix.training.command_line import leave_together

TRAIN, EVAL = 24, 12


def run(folder: Path, method: str, batch: int, accumulation: int, config: dict) -> dict:
    """Train three steps of eight examples and evaluate."""
    is_soft = method.startswith("soft ")
    name, _, level = method.removeprefix("soft ").partition(" at ")
    data = soft_data(TRAIN + EVAL) if is_soft else data_without_types(TRAIN + EVAL)
    args = arguments(
        folder,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=4 if config.get("split_batches") else 3,  # a multiple of the processes
        gradient_accumulation_steps=accumulation,
        accelerator_config=config or None,
    )
    trainer = InOrder(
        model=tiny_bert(problem_type="single_label_classification") if is_soft else tiny_bert(),
        args=args,
        method=get_method(name, level=level) if level else name,
        train_dataset=data[:TRAIN],
        eval_dataset=data[TRAIN:],
        data_collator=None if config else collate_pairs,
        compute_metrics=calibration_of(),
    )
    trainer.train()
    metrics = trainer.evaluate()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "processes": args.world_size,
        "losses": [entry["loss"] for entry in log],
        "mix": [entry.get("mix") for entry in log],
        "eval_loss": metrics["eval_loss"],
        "eval_brier": metrics["eval_brier"],
        "weights": weights(trainer.model).tolist(),
    }


def main() -> None:
    output, batch, accumulation, config, *methods = sys.argv[1:]
    numbers = int(batch), int(accumulation)
    results = {name: run(Path(output).with_suffix(""), name, *numbers, json.loads(config)) for name in methods}
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        Path(output).write_text(json.dumps(results))
    leave_together()


if __name__ == "__main__":
    main()
