"""What test_ranks.py starts under torchrun: what each process draws, and steps of unequal numbers of micro-batches.

torchrun --nproc_per_node 2 -m helpers.launched.ranks FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hf_logitmix.training.trainer
from helpers.data import data_without_types
from helpers.models import tiny_bert
from helpers.training import InOrder, arguments, collate_pairs, weights
from hf_logitmix.training.command_line import leave_together


def plans_of(folder: Path) -> tuple[int, list]:
    """The lam and the partners of three steps of this process."""
    plans, forward = [], hf_logitmix.training.trainer.mixed_forward

    def listening(model, inputs, plan, **kwargs):
        plans.append([plan.lam.tolist(), plan.partner.tolist()])
        return forward(model, inputs, plan, **kwargs)

    hf_logitmix.training.trainer.mixed_forward = listening
    args = arguments(folder, per_device_train_batch_size=4)
    InOrder(tiny_bert(), args, method="mixup", train_dataset=data_without_types(24)).train()
    hf_logitmix.training.trainer.mixed_forward = forward
    return args.process_index, plans


def unequal(folder: Path) -> dict:
    """Nine batches of two, three to a step: the second step has two on one process and one on the other."""
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "max_steps": 2}
    args = arguments(folder, **options, accelerator_config={"even_batches": False})
    trainer = InOrder(tiny_bert(), args, collate_pairs, data_without_types(18), method="logitmix")
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    terms = [entry["mix"] + entry["cls"] + entry["sim"] for entry in log]
    return {"losses": [entry["loss"] for entry in log], "terms": terms, "weights": weights(trainer.model).tolist()}


def main() -> None:
    folder = Path(sys.argv[1])
    rank, plans = plans_of(folder)
    (folder / f"{rank}.json").write_text(json.dumps({"plans": plans, "unequal": unequal(folder)}))
    leave_together()


if __name__ == "__main__":
    main()
