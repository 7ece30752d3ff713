"""All that a training step costs on a GPU, in one command of a few minutes: BERT-base and a ResNet-50 in bfloat16.

    python benchmarks/gpu.py

Random weights, synthetic batches: 32 texts of up to 128 tokens, 64 images of 224 pixels. Times of steps and their
ratios as in step_cost.py and layer_cost.py, interleaved in one process; the peak of memory beside the weights; and by
torch's profiler the share of a step that is ours: all of the loss but the model's forward, and what mixes inside it
(of their backward only the total is told). The result goes to gpu.json beside this file, with the device's name.
`--small` is the same with tiny models, to see that it runs where there is no GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
from layer_cost import LayerSteps
from step_cost import Steps
from timing import measure, record_of, save
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainingArguments

from hf_logitmix import MixTrainer, get_method
from hf_logitmix.modalities.hooks import AppendMixedRows, OverwriteMixedRows
from hf_logitmix.vision.wrap import as_classifier

BERT_BASE, SMALL_BERT = (768, 12, 12), (32, 3, 4)
IMAGE_METHODS = ("mixup", "cutmix", "mixup_cutmix", "puzzlemix", "logitmix_m", "logitmix_c")


class ImageSteps(Steps):
    """Steps of a ResNet."""

    def __init__(self, name: str, batch_size: int, side: int, args: TrainingArguments) -> None:
        model = as_classifier(timm.create_model(name, num_classes=10)).to(args.device)
        super().__init__(model, torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9), args)
        self.name, self.ratios = f"{name}, {batch_size} x {side} pixels", {}  # type: ignore[misc]
        pixels = torch.randn(batch_size, 3, side, side, device=args.device)
        batch = {"pixel_values": pixels, "labels": torch.arange(batch_size, device=args.device) % 10}
        self.add([f"{self.name}: vanilla"], get_method("vanilla"), batch)
        methods = {name: get_method(name) for name in IMAGE_METHODS}
        methods |= {"logitmix_m at hidden:3": get_method("logitmix_m", level="hidden:3")}
        for what, method in methods.items():
            self.add([f"{self.name}: {what}"], method, batch)
            self.ratios[f"{self.name}: {what} / vanilla"] = (f"{self.name}: {what}", f"{self.name}: vanilla", None)


@contextmanager
def named(owner: Any, method: str, name: str) -> Iterator[None]:
    """A block in which the profiler knows the calls of a method by a name."""
    original = getattr(owner, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return original(*args, **kwargs)

    with patch.object(owner, method, call):
        yield


def shares(steps: Steps, kind: str) -> dict[str, float]:
    """Of one step's time, on the host and on the device: how much is ours, by the profiler."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with (
        named(MixTrainer, "compute_loss", "loss"),
        named(type(steps.model), "forward", "model"),
        named(OverwriteMixedRows, "mix", "mixing"),
        named(AppendMixedRows, "mix", "mixing"),
        profile(activities=activities) as profiler,
        record_function("step"),
    ):
        steps.seconds(kind, 0)
    events = {event.key: event for event in profiler.key_averages()}

    def share(read: Callable[[Any], float]) -> float:
        loss, model, mixing, step = (
            read(events[name]) if name in events else 0.0 for name in ("loss", "model", "mixing", "step")
        )
        return (loss - model + mixing) / step if step else 0.0

    found = {"host": share(lambda event: event.cpu_time_total)}
    return found | ({"device": share(lambda e: e.device_time_total)} if torch.cuda.is_available() else {})


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds that count, at least 20 for a record")
    parser.add_argument("--small", action="store_true", help="tiny models, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("gpu.json"))
    options = parser.parse_args()
    if not (options.small or torch.cuda.is_available()):
        parser.error("there is no GPU here: pass --small, or run layer_cost.py and step_cost.py, which are for CPUs.")
    torch.manual_seed(0)
    found: dict[str, Any] = {"times": {}, "ratios": {}, "memory": {}, "shares": {}}
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, report_to="none", disable_tqdm=True, bf16=True, use_cpu=options.small)
        small = options.small
        kinds = (
            lambda: LayerSteps(
                "BERT", SMALL_BERT if small else BERT_BASE, 4 if small else 32, 16 if small else 128, args
            ),
            lambda: ImageSteps("test_resnet" if small else "resnet50", 8 if small else 64, 32 if small else 224, args),
        )
        for make in kinds:
            steps = make()
            found["times"] |= measure(steps.trainers, steps.seconds, options.rounds)
            found["ratios"] |= steps.ratios
            found["memory"] |= steps.memory()
            ours = [name for name, trainer in steps.trainers.items() if isinstance(trainer, MixTrainer)]
            found["shares"] |= {name: shares(steps, name) for name in ours}
    what = f"bfloat16, {options.rounds} rounds in random order, medians"
    record = record_of(what, found["times"], found["ratios"], "transformers", "timm")
    return save(
        {**record, "megabytes": found["memory"], "share of a step that is ours": found["shares"]}, options.output
    )


if __name__ == "__main__":
    raise SystemExit(main())
