"""What test_extras_launch.py starts, alone or under torchrun: train what learns beside the model, or from a teacher.

torchrun --nproc_per_node 2 -m helpers.launched.extras FOLDER PER_DEVICE_BATCH ACCUMULATION METHOD ...

Each process writes FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from helpers.data import data_without_types
from helpers.models import tiny_bert
from helpers.training import InOrder, arguments, collate_pairs, weights
from hf_logitmix import get_method, similarity
from hf_logitmix.training.command_line import leave_together

TRAIN = 32
OPTIONS = {
    "lamix": {},
    "sg_mcel": {"targets_lr": 0.5},
    "gmcel": {"targets_lr": 0.5},
    "distillation": {"teacher": tiny_bert(seed=1, dropout=0.5)},
}


class Counted:
    """A function that knows how often it was called."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs)


class Started(InOrder):
    """Keeps what is learned beside the model as it was before the first step."""

    def _use_extras(self, method):
        super()._use_extras(method)
        self.start = extras_of(self)


def extras_of(trainer) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in trainer._extras.state_dict().items()}


def run(folder: Path, method: str, batch: int, accumulation: int) -> dict:
    """Train four steps of eight examples."""
    analyses = similarity.lda_similarity = Counted(similarity.lda_similarity)
    args = arguments(
        folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=4,
        weight_decay=0.1,
        save_strategy="steps",
        save_steps=4,
    )
    trainer = Started(
        model=tiny_bert(),
        args=args,
        method=get_method(method, **OPTIONS[method]),
        train_dataset=data_without_types(TRAIN),
        data_collator=collate_pairs,
    )
    trainer.train()
    similarity.lda_similarity = analyses.function
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "processes": args.world_size,
        "analyses": analyses.calls,
        "terms": [{k: v for k, v in entry.items() if k not in ("learning_rate", "epoch", "step")} for entry in log],
        "weights": weights(trainer.model).tolist(),
        "start": trainer.start,
        "extras": extras_of(trainer),
    }


def main() -> None:
    output, batch, accumulation, *methods = sys.argv[1:]
    results = {name: run(Path(output) / name, name, int(batch), int(accumulation)) for name in methods}
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    (Path(output) / f"{rank}.json").write_text(json.dumps(results))
    leave_together()


if __name__ == "__main__":
    main()
