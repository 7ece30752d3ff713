"""What a training step costs: ours beside stock Trainer's, interleaved in one process.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --images

Text: BERT with 4 layers of 256, batches of 32 sentences of up to 64 tokens, dropout, AdamW. Images: CIFAR's ResNet-20,
batches of 100 greyscale images of 32 pixels, SGD. One round times one step of each kind; see timing.py. The result goes
to step_cost.json or image_step_cost.json beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from timing import measure, memory_of, record_of, save, seconds_of
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from hf_logitmix import Method, MixTrainer, get_method
from hf_logitmix.modalities.hooks import attached

BATCH, LENGTH, CLASSES = 32, 64, 3
IMAGES = 100


def batch_of(size: int, device: torch.device, length: int = LENGTH) -> dict[str, torch.Tensor]:
    """Random texts of half the length to all of it; two halves of a batch of 2 B have the same lengths."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(length // 2, length + 1, (min(size, BATCH),), generator=generator)
    mask = (torch.arange(length) < lengths.repeat(size // len(lengths))[:, None]).long()
    ids = torch.randint(1000, 30000, (size, length), generator=generator) * mask
    labels = torch.randint(0, CLASSES, (size,), generator=generator)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids), "labels": labels}
    return {name: value.to(device) for name, value in batch.items()}


class Steps:
    """Every kind of step, on one model and one optimizer.

    Attributes:
        what: the model and its batches.
        ratios: name -> (kind of step, kind that it is compared with, goal or None).
        trainers: of each kind.
    """

    what: str
    ratios: ClassVar[dict[str, tuple[str, str, float | None]]]

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, args: TrainingArguments) -> None:
        self.model, self.optimizer, self.args = model, optimizer, args
        self.trainers: dict[str, Trainer] = {}
        self.batches: dict[str, dict[str, torch.Tensor]] = {}
        self.fixed: dict[str, tuple[frozenset[str], ...] | None] = {}

    def add(self, kinds: list[str], method: Method | None, batch: dict[str, torch.Tensor]) -> None:
        """Kinds of step with a method of ours; None is stock Trainer."""
        if method is None:
            trainer = Trainer(model=self.model, args=self.args)
        else:
            trainer = MixTrainer(model=self.model, args=self.args, method=method)
            if learned := list(trainer.method_in_training.learned.parameters()):
                self.optimizer.add_param_group({"params": learned})
        trainer.current_gradient_accumulation_steps = 1
        self.trainers |= dict.fromkeys(kinds, trainer)
        self.batches |= dict.fromkeys(kinds, batch)

    def seconds(self, name: str, number: int) -> float:
        """Time one step: forward, loss, backward, optimizer."""
        trainer = self.trainers[name]
        trainer.state.global_step = 2 * number + int(name == "lamix, mixed batch")  # odd steps are mixed
        ours = isinstance(trainer, MixTrainer)
        hooks = trainer.method_in_training.install(self.model) if ours else contextlib.nullcontext()
        with hooks, attached(self.model) as places:  # on the model all through a run, so not a part of a step
            places.fixed = self.fixed.get(name)  # what the rehearsal in the first step found
            taken = seconds_of(lambda: self._step(trainer, self.batches[name]))
            self.fixed[name] = places.fixed
            return taken

    def _step(self, trainer: Trainer, batch: dict[str, torch.Tensor]) -> None:
        trainer.training_step(self.model, batch)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def memory(self) -> dict[str, float]:
        """MB that each kind of step needs beside the weights."""
        return {name: memory_of(partial(self.seconds, name, 0)) for name in self.trainers}


class TextSteps(Steps):
    what = f"BERT 4x256, batch {BATCH}, length {LENGTH}"
    ratios: ClassVar = {
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

    def __init__(self, args: TrainingArguments) -> None:
        config = BertConfig(
            hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, num_labels=CLASSES
        )
        model = BertForSequenceClassification(config)
        super().__init__(model, torch.optim.AdamW(model.parameters(), lr=1e-5), args)
        batch = batch_of(BATCH, args.device)
        self.add(["stock"], None, batch)
        self.add(["vanilla"], get_method("vanilla"), batch)
        self.add(["vanilla on 2B"], get_method("vanilla"), batch_of(2 * BATCH, args.device))
        for name in ("label_smoothing", "mixup", "logitmix"):
            self.add([name], get_method(name), batch)
        for name in ("mcel", "sg_mcel", "gmcel"):
            similarity = (1 - torch.eye(CLASSES)) / (CLASSES - 1)
            self.add([name], get_method(name, class_similarity=similarity), batch)
        self.add(["infogain"], get_method("infogain", class_counts=[1] * CLASSES), batch)
        self.add(["mixup at hidden:2"], get_method("mixup", level="hidden:2"), batch)
        self.add(["lamix, clean batch", "lamix, mixed batch"], get_method("lamix"), batch)


class ImageSteps(Steps):
    what = f"CIFAR's ResNet-20, batch {IMAGES}, 32 x 32 x 1"
    ratios: ClassVar = {
        f"{name} / vanilla": (name, "vanilla", None)
        for name in (
            *("mixup", "cutmix", "puzzlemix", "logitmix_m", "logitmix_c", "logitmix_p"),
            *("lamix, mixed batch", "lamix, clean batch", "mixup at hidden:2", "mcel"),
        )
    }

    def __init__(self, args: TrainingArguments) -> None:
        from hf_logitmix.vision import create_model

        model = create_model("timm/small_resnet20", 10, channels=1)
        super().__init__(model, torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, nesterov=True), args)
        pixels, labels = torch.randn(IMAGES, 1, 32, 32, device=args.device), torch.arange(IMAGES) % 10
        batch = {"pixel_values": pixels, "labels": labels.to(args.device)}
        for name in ("vanilla", "mixup", "cutmix", "puzzlemix", "logitmix_m", "logitmix_c", "logitmix_p"):
            self.add([name], get_method(name), batch)
        self.add(["mcel"], get_method("mcel", class_similarity=(1 - torch.eye(10)) / 9), batch)
        self.add(["mixup at hidden:2"], get_method("mixup", level="hidden:2"), batch)
        self.add(["lamix, clean batch", "lamix, mixed batch"], get_method("lamix"), batch)


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", action="store_true", help="steps on images instead of text")
    parser.add_argument("--rounds", type=int, default=30, help="rounds that count, at least 20 for a record")
    parser.add_argument("--output", type=Path, help="default: step_cost.json or image_step_cost.json beside this file")
    options = parser.parse_args()
    default = "image_step_cost.json" if options.images else "step_cost.json"
    output = options.output or Path(__file__).with_name(default)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, report_to="none", disable_tqdm=True)
        steps = ImageSteps(args) if options.images else TextSteps(args)
        times = measure(steps.trainers, steps.seconds, options.rounds)
    what = f"{steps.what}, {options.rounds} rounds in random order, medians"
    return save(record_of(what, times, steps.ratios, "transformers"), output)


if __name__ == "__main__":
    raise SystemExit(main())
