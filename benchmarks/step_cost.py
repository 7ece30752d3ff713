"""What a training step costs: ours beside stock Trainer's, interleaved in one process.

    python benchmarks/step_cost.py

BERT with 4 layers of 256, batches of 32 sentences of up to 64 tokens, dropout, AdamW. One round times one step of each
kind, in a new random order; a ratio is the median over the rounds of the ratio within a round, so that a machine
that changes its speed changes both sides. The result goes to step_cost.json beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers
from tqdm import tqdm
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from hf_logitmix import MixTrainer, __version__, get_method
from hf_logitmix.targets import TrainingSet

BATCH, LENGTH, CLASSES = 32, 64, 3
RATIOS = {
    "vanilla / stock Trainer": ("vanilla", "stock", 1.01),
    "mixup / vanilla": ("mixup", "vanilla", 1.03),
    "logitmix / vanilla on 2B": ("logitmix", "vanilla on 2B", 1.02),
    "logitmix / vanilla": ("logitmix", "vanilla", None),
    "lamix, mixed batch / vanilla": ("lamix, mixed batch", "vanilla", None),
    "lamix, clean batch / vanilla": ("lamix, clean batch", "vanilla", None),
    "mixup at hidden:2 / vanilla": ("mixup at hidden:2", "vanilla", None),
    "label_smoothing / vanilla": ("label_smoothing", "vanilla", None),
    "infogain / vanilla": ("infogain", "vanilla", None),
    "mcel / vanilla": ("mcel", "vanilla", None),
    "sg_mcel / vanilla": ("sg_mcel", "vanilla", None),
    "gmcel / vanilla": ("gmcel", "vanilla", None),
}


def batch_of(size: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Random sentences of 32 to 64 tokens; two halves of a batch twice as large have the same lengths."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (BATCH,), generator=generator).repeat(size // BATCH)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    ids = torch.randint(1000, 30000, (size, LENGTH), generator=generator) * mask
    labels = torch.randint(0, CLASSES, (size,), generator=generator)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids), "labels": labels}
    return {name: value.to(device) for name, value in batch.items()}


class Steps:
    """Every kind of step, on one model and one optimizer."""

    def __init__(self, folder: str) -> None:
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, num_labels=CLASSES
        )
        self.model = BertForSequenceClassification(config)
        args = TrainingArguments(folder, report_to="none", disable_tqdm=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.trainers: dict[str, Trainer] = {"stock": Trainer(model=self.model, args=args)}
        similarity = {"class_similarity": (1 - torch.eye(CLASSES)) / (CLASSES - 1)}
        options = dict.fromkeys(("mcel", "sg_mcel", "gmcel"), similarity) | {
            "infogain": {"class_counts": [1] * CLASSES},
            "mixup at hidden:2": {"level": "hidden:2"},
        }
        plain = ("vanilla", "label_smoothing", "infogain", "mixup", "mixup at hidden:2", "logitmix", "lamix")
        for method in (*plain, "mcel", "sg_mcel", "gmcel"):
            chosen = get_method(method.split(" ")[0], **options.get(method, {}))
            trainer = MixTrainer(model=self.model, args=args, method=chosen)
            trainer.method = trainer.method.prepare(TrainingSet(None, self.model, CLASSES))
            if learned := list(trainer.method.learned.parameters()):
                self.optimizer.add_param_group({"params": learned})
            kinds = {"vanilla": ("vanilla", "vanilla on 2B"), "lamix": ("lamix, clean batch", "lamix, mixed batch")}
            self.trainers |= dict.fromkeys(kinds.get(method, (method,)), trainer)
        for trainer in self.trainers.values():
            trainer.current_gradient_accumulation_steps = 1
        self.batch, self.batch_2b = batch_of(BATCH, args.device), batch_of(2 * BATCH, args.device)

    def seconds(self, name: str) -> float:
        """Time one step: forward, loss, backward, optimizer."""
        trainer, batch = self.trainers[name], self.batch_2b if name == "vanilla on 2B" else self.batch
        trainer.state.global_step = int(name == "lamix, mixed batch")  # odd steps are mixed
        hooks = trainer.method.attached(self.model) if isinstance(trainer, MixTrainer) else contextlib.nullcontext()
        with hooks:  # on the model all through a training run, so not a part of a step
            _wait()
            started = time.perf_counter()
            trainer.training_step(self.model, batch)
            self.optimizer.step()
            self.optimizer.zero_grad()
            _wait()
            return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of each kind of step, a list with one entry a round."""
    rng = random.Random(0)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        steps = Steps(folder)
        names = list(steps.trainers)
        for number in tqdm(range(warm_up + rounds), desc="rounds"):
            rng.shuffle(names)
            for name in names:
                seconds = steps.seconds(name)
                if number >= warm_up:
                    times.setdefault(name, []).append(seconds)
    return times


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds that count, at least 20 for a record")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    times = measure(options.rounds)
    ratios = {}
    for name, (above, below, goal) in RATIOS.items():
        each = sorted(a / b for a, b in zip(times[above], times[below], strict=True))
        low, _, high = statistics.quantiles(each, n=4)
        ratios[name] = {"median": statistics.median(each), "quartiles": [low, high], "goal": goal}
    record = {
        "what": f"BERT 4x256, batch {BATCH}, length {LENGTH}, {options.rounds} rounds in random order, medians",
        "ratios": ratios,
        "median_seconds": {name: statistics.median(values) for name, values in times.items()},
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads",
        "versions": {
            "hf_logitmix": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    for name, ratio in ratios.items():
        goal = "" if ratio["goal"] is None else f"   goal <= {ratio['goal']}"
        print(f"{name:<32}{ratio['median']:.3f}  [{ratio['quartiles'][0]:.3f}, {ratio['quartiles'][1]:.3f}]{goal}")
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
