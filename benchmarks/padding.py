"""How much of a batch is padding, for clean and mixed rows: tokens of GLUE's training sets, by sampling and pairing.

    python benchmarks/padding.py        writes padding.json beside this file

HF_LOGITMIX_DATA (its folder glue is GLUE in the classic layout; of MNLI the first rows, train.partial.tsv, if there are
no more) and HF_LOGITMIX_MODEL (whose tokenizer counts) must be set. Ten epochs of batches of 32 are drawn as Trainer
draws them, padded to the longest of the batch, and paired by `RandomPairs`, as in training; no model is run. A mixed
row has the length of its batch and the tokens of the longer of its two texts. A table is printed.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import AutoTokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_logitmix import __version__
from hf_logitmix.glue.data import load_task
from hf_logitmix.glue.tasks import TASKS
from hf_logitmix.pairing import RandomPairs
from hf_logitmix.step import Step

NAMES = ("cola", "sst2", "mrpc", "rte", "mnli")
BATCH, LONGEST, EPOCHS = 32, 128, 10
SAMPLINGS = ("random", "group_by_length")
PARTNERS = ("any", "length")


def lengths_and_labels(name: str, tokenizer: Any, glue_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the texts of a training set, cut at `LONGEST` tokens."""
    task = TASKS[name]
    partial = "train.partial.tsv" if (glue_dir / task.folder / "train.partial.tsv").exists() else None
    ((_, data),) = load_task(task, ("train",), str(glue_dir), train_file=partial)["train"]
    ids = tokenizer(*(data[:][column] for column in task.texts), truncation=True, max_length=LONGEST)["input_ids"]
    return np.array([len(row) for row in ids]), np.array(data[:]["label"])


def batches(lengths: np.ndarray, sampling: str, epoch: int) -> Iterator[np.ndarray]:
    """The examples of each batch of an epoch."""
    generator = torch.Generator().manual_seed(epoch)
    if sampling == "random":
        order = torch.randperm(len(lengths), generator=generator).numpy()
    else:
        order = np.array(list(LengthGroupedSampler(BATCH, lengths=lengths.tolist(), generator=generator)))
    yield from (order[start : start + BATCH] for start in range(0, len(order), BATCH))


def epochs_of(lengths: np.ndarray, sampling: str, partners: str) -> tuple[np.ndarray, ...]:
    """Of each example in each epoch its partner and the length of its batch, IntArray[EPOCHS, N] each."""
    pairing, index = RandomPairs(partners=partners), 0
    partner, padded = (np.zeros((EPOCHS, len(lengths)), dtype=int) for _ in range(2))
    for epoch in range(EPOCHS):
        for rows in batches(lengths, sampling, epoch):
            longest = lengths[rows].max()
            mask = torch.arange(longest) < torch.from_numpy(lengths[rows])[:, None]
            plan = pairing({"attention_mask": mask.long()}, None, Step(index, 0))
            partner[epoch, rows], padded[epoch, rows] = rows[plan.partner.numpy()], longest
            index += 1
    return partner, padded


def measured(lengths: np.ndarray, labels: np.ndarray, sampling: str, partners: str) -> dict[str, float]:
    """What becomes of one training set; see the names in `main`."""
    partner, padded = epochs_of(lengths, sampling, partners)
    own, other = np.broadcast_to(lengths, partner.shape), lengths[partner]
    longer, shorter = np.maximum(own, other), np.minimum(own, other)
    pairs = partner != np.arange(len(lengths))  # a permutation leaves some texts with themselves
    found = {
        "clean": padded.sum() / own.sum(),
        "mixed": padded.sum() / longer.sum(),
        "of_both": shorter.sum() / longer.sum(),
        "of_both_of_computed": shorter.sum() / padded.sum(),
        "correlation": np.corrcoef(own[pairs], other[pairs])[0, 1],
        "same_label": (labels[partner] == labels)[pairs].mean(),
        "with_itself": 1 - pairs.mean(),
        "different_partners": np.mean([len(set(column)) for column in partner.T]),
        "most_often_a_partner": max(np.bincount(row, minlength=len(lengths)).max() for row in partner),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def of_task(name: str, tokenizer: Any, glue_dir: Path) -> dict[str, Any]:
    lengths, labels = lengths_and_labels(name, tokenizer, glue_dir)
    shares = np.bincount(labels) / len(labels)
    quartiles = [int(value) for value in np.percentile(lengths, (25, 50, 75))]
    expected = (len(labels) * (shares**2).sum() - 1) / (len(labels) - 1)
    return {
        "texts": len(lengths),
        "tokens": int(lengths.sum()),
        "quartiles_of_length": quartiles,
        "longest": int(lengths.max()),
        "same_label_of_any_two_texts": round(float(expected), 4),
        **{
            sampling: {partners: measured(lengths, labels, sampling, partners) for partners in PARTNERS}
            for sampling in SAMPLINGS
        },
    }


def main() -> int:
    """Measure all, write the record and print a table."""
    model, data = os.environ.get("HF_LOGITMIX_MODEL"), os.environ.get("HF_LOGITMIX_DATA")
    if not model or not data:
        print("Nothing was measured: set HF_LOGITMIX_MODEL and HF_LOGITMIX_DATA, whose folder glue holds GLUE.")
        return 1
    tokenizer, glue_dir = AutoTokenizer.from_pretrained(model), Path(data) / "glue"
    record = {
        "what": f"GLUE's training sets in batches of {BATCH}, cut at {LONGEST} tokens of {Path(model).name}, padded to "
        f"the longest of the batch, {EPOCHS} epochs; of MNLI the rows that there were",
        "names": {
            "clean": "tokens computed / real ones, of clean rows",
            "mixed": "the same of mixed rows, whose real tokens are those of the longer text",
            "of_both": "share of the real positions of mixed rows at which both texts have a token",
            "of_both_of_computed": "the same of all positions that are computed",
            "correlation": "of the lengths of an example and its partner, where these are two",
            "same_label": "share of the pairs whose labels are equal, where these are two texts",
            "with_itself": "share of the rows that are their own partner",
            "different_partners": f"of a text in {EPOCHS} epochs, a mean",
            "most_often_a_partner": "how often a text is a partner in one epoch at most",
        },
        "tasks": {name: of_task(name, tokenizer, glue_dir) for name in tqdm(NAMES, desc="tasks")},
        "versions": {
            "hf_logitmix": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(record, indent=1) + "\n")
    for name, task in record["tasks"].items():  # type: ignore[attr-defined]
        for sampling in SAMPLINGS:
            for partners in PARTNERS:
                numbers = task[sampling][partners]
                print(f"{name:5s} {sampling:16s} {partners:7s}", *(f"{value:8.3f}" for value in numbers.values()))
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
