"""From training to service: calibrated, pushed, and loaded by a fresh process of plain transformers."""

import json
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, set_seed

from helpers.loopback_hub import USER
from helpers.training import arguments
from hf_logitmix import MixTrainer, fold_temperature
from hf_logitmix.glue.demo import train_tokenizer

WORDS = [a + b for a in "bdfgklmnprst" for b in ("ab", "el", "im", "or", "un")]
PLAIN = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = sys.argv[1], json.load(open(sys.argv[2]))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
inputs = tokenizer(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
    if hasattr(model.config, "calibration"):
        logits = logits / model.config.calibration["temperature"]
assert "hf_logitmix" not in sys.modules
json.dump(logits.softmax(-1).tolist(), open(sys.argv[3], "w"))
"""
PIPELINE = """
import json, sys
{imports}
folder, texts = sys.argv[1], json.load(open(sys.argv[2]))
rows = {pipeline}(texts, top_k=None)
json.dump([[one["score"] for one in sorted(row, key=lambda one: one["label"])] for row in rows], open(sys.argv[3], "w"))
"""
WAYS = {
    "two lines": PLAIN,
    "calibrated_pipeline": PIPELINE.format(
        imports="from hf_logitmix import calibrated_pipeline", pipeline="calibrated_pipeline(folder)"
    ),
    "plain pipeline": PIPELINE.format(
        imports="from transformers import pipeline", pipeline='pipeline("text-classification", folder)'
    ),
}


def corpus(count, seed):
    """Eight words a text; its class is the third of the vocabulary that most words are of, in seven cases of ten."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(len(WORDS), size=(count, 8))
    votes = np.stack([(numbers % 3 == k).sum(1) for k in range(3)], 1)
    labels = np.where(rng.random(count) < 0.7, votes.argmax(1), rng.integers(3, size=count))
    return [" ".join(WORDS[n] for n in row) for row in numbers], labels.tolist()


def ece(p, labels, n_bins=10):
    total = 0.0
    for b in range(n_bins):
        inside = [i for i, row in enumerate(p) if b / n_bins < max(row) <= (b + 1) / n_bins]
        if inside:
            right = np.mean([int(np.argmax(p[i]) == labels[i]) for i in inside])
            total += len(inside) / len(p) * abs(right - np.mean([max(p[i]) for i in inside]))
    return total


def served(way, hub, folder, texts):
    """The probabilities that a fresh process gives from what was pushed."""
    for path in folder.glob("*"):
        path.unlink()
    for name, content in hub.repos[f"{USER}/out"].items():
        (folder / name).write_bytes(content)
    asked, answered = folder.parent / "texts.json", folder.parent / "scores.json"
    asked.write_text(json.dumps(texts))
    subprocess.run([sys.executable, "-c", WAYS[way], str(folder), str(asked), str(answered)], check=True)
    return np.array(json.loads(answered.read_text()))


@pytest.mark.slow
def test_a_pushed_model_is_served_calibrated(hub, tmp_path):
    train, held, report = (corpus(count, seed) for seed, count in enumerate((400, 400, 1000)))
    tokenizer = train_tokenizer(train[0])
    sets = [Dataset.from_dict({**tokenizer(texts), "label": labels}) for texts, labels in (train, held, report)]
    set_seed(0)
    config = BertConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"intermediate_size": 128, "max_position_embeddings": 64, "num_labels": 3},
    )
    args = arguments(
        tmp_path / "out",
        **{"optim": "adamw_torch", "learning_rate": 1e-3, "max_steps": 400, "per_device_train_batch_size": 32},
        **{"push_to_hub": True, "hub_token": "hf_aTokenThatNobodyElseMaySee0123456"},
    )
    trainer = MixTrainer(
        model=BertForSequenceClassification(config),
        args=args,
        method="vanilla",
        train_dataset=sets[0],
        processing_class=tokenizer,
    )
    trainer.train()
    temperature = trainer.calibrate(sets[1], name="held out of train")
    trainer.push_to_hub()
    copy, (texts, labels) = tmp_path / "copy", report
    copy.mkdir()
    probabilities = {
        "before": served("plain pipeline", hub, copy, texts),
        "two lines": served("two lines", hub, copy, texts),
        "calibrated_pipeline": served("calibrated_pipeline", hub, copy, texts),
    }
    fold_temperature(trainer.model)
    trainer.push_to_hub()
    probabilities |= {f"folded, {way}": served(way, hub, copy, texts) for way in WAYS}
    errors = {way: ece(p, labels) for way, p in probabilities.items()}
    print(f"T {temperature:.4f}", {way: round(error, 7) for way, error in errors.items()})
    assert temperature > 1.3
    assert errors["before"] > 2 * errors["calibrated_pipeline"]
    for way, error in errors.items():
        if way != "before":
            assert error == pytest.approx(errors["calibrated_pipeline"], abs=1e-6), way
            np.testing.assert_allclose(probabilities[way], probabilities["calibrated_pipeline"], atol=1e-6)
