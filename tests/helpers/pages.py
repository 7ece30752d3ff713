"""What the code of a page takes for granted: a model, a tokenizer, arguments, and rows that were not padded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_logitmix.glue.demo import train_tokenizer

SENTENCES = [
    "a good soup",
    "the plot was not bad at all",
    "this phone seems slow",
    "good",
    "bad plot",
    "a slow soup and a bad phone that nobody needs",
]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}


def blocks_of(text: str, language: str) -> list[str]:
    """The code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run_blocks(path: Path, names: dict[str, Any]) -> dict[str, Any]:
    """Run the Python of a page, one block after another, and give what it leaves; there must be some."""
    blocks = blocks_of(path.read_text(), "python")
    assert blocks
    for number, code in enumerate(blocks):
        exec(compile(code, f"{path.name}, block {number}", "exec"), names)
    return names


def save_checkpoint(folder: Path, sentences: list[str] = SENTENCES, num_labels: int = 2) -> str:
    """A folder with a tiny random BERT and a tokenizer that knows the sentences; its path."""
    tokenizer = train_tokenizer(sentences)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), num_labels=num_labels, **SIZES)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def text_names(folder: Path, num_labels: int = 3) -> dict[str, Any]:
    """Names for code on text: rows of unequal length, tokenized as one does without a thought of padding.

    With ``num_labels=1`` the labels are numbers.
    """
    tokenizer = AutoTokenizer.from_pretrained(save_checkpoint(folder / "checkpoint", num_labels=num_labels))
    numbers = range(4 * len(SENTENCES))
    labels = [number % num_labels if num_labels > 1 else number / 10 for number in numbers]
    data = {"text": SENTENCES * 4, "label": labels}
    rows = Dataset.from_dict(data).map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
    rows = rows.remove_columns("text")
    assert len({len(ids) for ids in rows["input_ids"]}) > 2
    model = BertForSequenceClassification.from_pretrained(folder / "checkpoint")
    return {**_names(folder, model, rows), "tokenizer": tokenizer, "calibration_dataset": _as_predicted(model, rows)}


@torch.no_grad()
def _as_predicted(model: Any, rows: Dataset) -> Dataset:
    """The rows with the classes that the model gives them, but for one that a row of the same text contradicts."""
    inputs = rows.remove_columns("label")
    logits = [model.eval()(**{k: torch.tensor([v]) for k, v in row.items()}).logits[0] for row in inputs]
    labels = [int(one.argmax()) for one in logits]
    labels[0] = (labels[0] + 1) % max(len(logits[0]), 2)
    return inputs.add_column("label", labels)


def image_names(folder: Path) -> dict[str, Any]:
    """Names for code on images, in three classes."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, num_labels=3, **SIZES))
    pixels = torch.randn(16, 3, 16, 16)
    return _names(folder, model, [{"pixel_values": image, "labels": i % 3} for i, image in enumerate(pixels)])


def _names(folder: Path, model: Any, data: Any) -> dict[str, Any]:
    args = TrainingArguments(
        str(folder / "out"),
        max_steps=3,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    numbers = range(len(data) // 2, len(data))  # not the training set itself
    other = data.select(numbers) if isinstance(data, Dataset) else [data[number] for number in numbers]
    return {"__name__": "page", "model": model, "args": args, "train_dataset": data, "eval_dataset": other}
