"""How near lam = 1 comes to the own logits of the shorter of two texts: masks as a union, and softly.

python benchmarks/unequal_lengths.py        writes unequal_lengths.json beside this file

A gap is the distance of two rows of logits as a share of the mean distance between the logits of two texts of a batch.
The architectures are those of tests/helpers/tiny_models.py, small and random, with padding that has a vector of its
own. With HF_LOGITMIX_MODEL and HF_LOGITMIX_DATA (its folder glue is GLUE in the classic layout) that model with
a new head is tried too, on the first dev sentences of SST-2 and MRPC, in batches as they come.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_logitmix import MixPlan, __version__, mixed_forward
from hf_logitmix.glue.data import load_task
from hf_logitmix.glue.tasks import TASKS
from hf_logitmix.mixing import Linear
from hf_logitmix.training.rehearsal import rehearse

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.architectures import BATCH, LENGTH, MODEL_TYPES, NEEDS_OTHER_PACKAGES, inputs_of, with_padding_in_use
from helpers.tiny_models import tiny_model

SHARES = {"1/4": 4, "1/2": 8, "3/4": 12}  # of the longer text's 16 tokens
PAIRS = torch.tensor([1, 0, 3, 2, 5, 4])
SENTENCES, BATCH_OF_SENTENCES = 256, 32


@torch.no_grad()
def gaps(model: nn.Module, inputs: dict[str, Tensor], partner: Tensor, masks: Any) -> Tensor:
    """Of each row that is shorter than its partner, with lam = 1."""
    clean = model(**inputs).logits.double()
    length = inputs["attention_mask"].sum(1)
    plan = MixPlan(partner, torch.ones(len(partner)))
    mixed = mixed_forward(model, inputs, plan, mixing=Linear(masks=masks), rows="mixed").mixed_logits
    apart = torch.cdist(clean, clean)
    return ((mixed - clean).norm(dim=1) / apart[apart > 0].mean())[length < length[partner]]


def of_architecture(model_type: str) -> dict[str, Any]:
    """The way that the rehearsal chooses, and the largest gap by side of the padding, way and share."""
    model = with_padding_in_use(tiny_model(model_type))
    found: dict[str, Any] = {"masks": rehearse(model, inputs_of(model), Linear()).masks}
    for side in ("right", "left"):
        rows = {
            share: inputs_of(model, (LENGTH, short) * (BATCH // 2), side == "left") for share, short in SHARES.items()
        }
        found[side] = {
            way: {share: round(gaps(model, inputs, PAIRS, way).max().item(), 4) for share, inputs in rows.items()}
            for way in ("union", "soft")
            if way in ("union", found["masks"])
        }
    return found


def of_sentences(model_path: str, data: str) -> dict[str, Any]:
    """Quartiles of the gaps of real sentences; a new head is drawn with seed 0."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(model_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    found: dict[str, Any] = {}
    for name in ("sst2", "mrpc"):
        task = TASKS[name]
        ((_, dev),) = load_task(task, ("dev",), data)["dev"]
        texts = [dev[:SENTENCES][column] for column in task.texts]
        each: dict[str, list[float]] = {"union": [], "soft": []}
        for start in range(0, SENTENCES, BATCH_OF_SENTENCES):
            batch = [column[start : start + BATCH_OF_SENTENCES] for column in texts]
            inputs = dict(tokenizer(*batch, padding=True, truncation=True, max_length=128, return_tensors="pt"))
            partner = torch.arange(BATCH_OF_SENTENCES).roll(1)
            for way, values in each.items():
                values += gaps(model, inputs, partner, way).tolist()
        found[name] = {
            "rows": len(each["union"]),
            **{way: [round(q, 4) for q in statistics.quantiles(values, n=4)] for way, values in each.items()},
        }
    return found


def main() -> int:
    """Measure all and write the record."""
    logging.getLogger("hf_logitmix").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    tried = [name for name in MODEL_TYPES if name not in NEEDS_OTHER_PACKAGES]
    record = {
        "what": "lam = 1, the shorter of two texts: distance to its own logits / mean distance between two texts. "
        f"Architectures: tiny and random, {LENGTH} tokens and a share of them, largest of three pairs. Sentences: "
        "quartiles over rows, all-MiniLM-L6-v2 with a new head, padding on the right.",
        "architectures": {name: of_architecture(name) for name in tqdm(tried, desc="architectures")},
        "sentences": None,
        "versions": {
            "hf_logitmix": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    model, data = os.environ.get("HF_LOGITMIX_MODEL"), os.environ.get("HF_LOGITMIX_DATA")
    if model and data:
        record["sentences"] = of_sentences(model, str(Path(data) / "glue"))
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
