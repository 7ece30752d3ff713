"""What mixing at a layer costs, where the layers below it run once: time of a step and memory, beside vanilla's.

    python benchmarks/layer_cost.py

The shapes of MiniLM (6 layers of 384) and of a BERT with 4 layers of 256, random weights, dropout, AdamW; batches of 32
texts of up to 64 tokens and of 16 of up to 128. The goal is 1.03 times the floor: with k of n layers below the mix,
f of the batch mixed and clean rows kept, (k + (1 + f)(n - k)) / n; with mixed rows alone it is 1.05.
One round times each kind once; see timing.py. Memory is the peak of what a step allocates, beside the weights. The
result goes to layer_cost.json beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
from step_cost import Steps, batch_of
from timing import measure, record_of, save
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from hf_logitmix import Method, get_method

MODELS = {  # hidden size, layers, heads
    "MiniLM": (384, 6, 12),
    "BERT 4x256": (256, 4, 4),
}
SHAPES = ((32, 64), (16, 128))


class LayerSteps(Steps):
    """Steps of one model on batches of one shape."""

    def __init__(
        self, name: str, shape: tuple[int, int, int], batch_size: int, length: int, args: TrainingArguments
    ) -> None:
        width, layers, heads = shape
        config = BertConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
            num_labels=3,
        )  # fmt: skip
        model = BertForSequenceClassification(config).to(args.device)
        super().__init__(model, torch.optim.AdamW(model.parameters(), lr=1e-5), args)
        self.name = f"{name}, {batch_size} x {length}"
        self.batch = batch_of(batch_size, args.device, length)
        self.ratios: dict[str, tuple[str, str, float | None]] = {}  # type: ignore[misc]
        self.add([self.kind("stock")], None, self.batch)
        self.compare("vanilla", get_method("vanilla"), "stock", 1.01)
        self.compare("label_smoothing", get_method("label_smoothing"), "vanilla", 1.02)
        self.compare("logitmix", get_method("logitmix"), "vanilla", 1.03 * 2)
        self.compare("mixup", get_method("mixup"), "vanilla", 1.05)
        for k in sorted({layers // 3, 2 * layers // 3, layers - 1}):
            self.at_layer("logitmix", k, layers, 1.03 * (k + 2 * (layers - k)) / layers)
            self.at_layer("mixup", k, layers, 1.05)
        self.at_layer("logitmix", layers - 1, layers, 1.03 * (1 + 0.5 / layers), mix_fraction=0.5)

    def kind(self, what: str) -> str:
        return f"{self.name}: {what}"

    def compare(self, what: str, method: Method, other: str, goal: float) -> None:
        """A kind of step, and another that it is to cost no more than so many times."""
        self.add([self.kind(what)], method, self.batch)
        self.ratios[self.kind(f"{what} / {other}")] = (self.kind(what), self.kind(other), goal)

    def at_layer(self, method: str, k: int, layers: int, goal: float, **options: Any) -> None:
        what = f"{method} at {k} of {layers}" + "".join(f", {name} {value}" for name, value in options.items())
        self.compare(what, get_method(method, level=f"hidden:{k}", **options), "vanilla", goal)


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds that count, at least 20 for a record")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS), help="all of them, if left out")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("layer_cost.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    times: dict[str, list[float]] = {}
    ratios: dict[str, tuple[str, str, float | None]] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, report_to="none", disable_tqdm=True)
        for name, (batch_size, length) in itertools.product(options.models, SHAPES):
            steps = LayerSteps(name, MODELS[name], batch_size, length, args)
            times |= measure(steps.trainers, steps.seconds, options.rounds)
            memory |= steps.memory()
            ratios |= steps.ratios
    record = record_of(f"{options.rounds} rounds in random order, medians", times, ratios, "transformers")
    record["megabytes"] = memory
    for name, (above, below, _) in ratios.items():
        record["ratios"][name]["memory"] = memory[above] / memory[below]
    return save(record, options.output)


if __name__ == "__main__":
    raise SystemExit(main())
