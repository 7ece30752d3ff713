"""What test_span.py starts: LogitMix on spans, in steps of eight examples however many processes there are.

torchrun --nproc_per_node 2 -m helpers.launched.spans FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from helpers.data import examples
from helpers.models import tiny_bert
from helpers.training import InOrder, arguments, collate_pairs, logged, weights
from hf_logitmix import Method
from hf_logitmix.mixing import SpanMix
from hf_logitmix.objectives import LogitMix
from hf_logitmix.training.command_line import leave_together


def main() -> None:
    folder, processes = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1"))
    args = arguments(folder, per_device_train_batch_size=4, gradient_accumulation_steps=2 // processes)
    method = Method(SpanMix(special_ids=(0,)), LogitMix())
    trainer = InOrder(tiny_bert(), args, collate_pairs, examples(24), method=method)
    trainer.train()
    found = {"weights": weights(trainer.model).tolist(), "lam_mean": logged(trainer, "lam_mean")}
    (folder / f"{args.process_index}.json").write_text(json.dumps(found))
    leave_together()


if __name__ == "__main__":
    main()
