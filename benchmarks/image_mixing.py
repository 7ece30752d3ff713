"""What it costs to mix images: ours beside timm and torchvision, at layers, and PuzzleMix beside graph cuts.

    pip install gco-wrapper
    python benchmarks/image_mixing.py

Pixels, float32. Partners and lam are drawn before the clock starts, the same lam for all sides of a round; boxes are
drawn after, and nobody mixes labels. `timm.data.Mixup` writes over its input and meets the batch in reverse order;
torchvision's transforms give a new tensor and meet the image before; ours gives a new tensor, meets a random
permutation and leaves its input as it is. Where the model is to see clean and mixed images, torchvision's are put
behind the clean ones by torch.cat, and timm is given the second half of a torch.cat of two copies.

Layers: a step (forward, loss, backward) of CIFAR's ResNet-20 that mixes the output of a stage.

PuzzleMix without its saliency, on blocks of 2 x 2 to 16 x 16, of which training draws one for each step, and the sum of
the four. The other side is the released code's algorithm on the
same energies: graph cuts of gco, one image at a time, on costs that are rounded to integers, and a transport that keeps
a matrix of 0 and 1 over all pairs of blocks in each of its rounds and moves the blocks by a product with it.

One round times each kind once; see timing.py. Peak memory is what a call has allocated at most at a time, beside its
input. The result goes to image_mixing.json beside this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from puzzlemix_labels import graph_cuts
from timing import measure, memory_of, record_of, save, seconds_of
from timm.data import Mixup
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.mixing import Linear
from hf_logitmix.mixing.image import cutmix, mixup
from hf_logitmix.mixing.puzzlemix import label_energy, normalised_saliency, puzzlemix, transport_plan
from hf_logitmix.modalities.hooks import attached
from hf_logitmix.output import Rows
from hf_logitmix.pairing import sample_plan
from hf_logitmix.training.rehearsal import rehearse
from hf_logitmix.vision import create_model
from hf_logitmix.vision.shapes import draw_shapes

OURS = {"mixup": mixup, "cutmix": cutmix}
ALPHAS = {"mixup": (1.0, 0.0), "cutmix": (0.0, 1.0)}  # of timm
MODES = {"batch": "one lam", "elem": "a lam each"}
SIZES = ((128, 32), (64, 224))
STEP_BATCH, PUZZLES, PUZZLE_SIZE, T_EPS = 64, 100, 32, 0.8


class Kinds:
    """What is timed.

    Attributes:
        calls: name -> a call.
        ratios: name -> (kind, kind that it is compared with, goal).
        before: name -> what is done before its call, with the number of the round.
    """

    def __init__(self) -> None:
        self.calls: dict[str, Callable[[], Any]] = {}
        self.ratios: dict[str, tuple[str, str, float | None]] = {}
        self.before: dict[str, Callable[[int], None]] = {}
        self.hooks = ExitStack()

    def add(self, name: str, call: Callable[[], Any], before: Callable[[int], None] | None = None) -> str:
        self.calls[name] = call
        if before is not None:
            self.before[name] = before
        return name

    def seconds(self, name: str, number: int) -> float:
        """Time one call."""
        if name in self.before:
            self.before[name](number)
        return seconds_of(self.calls[name])


class Given(Mixup):
    """timm's, with numbers that were drawn before."""

    lam: Any

    def _params_per_batch(self):
        return self.lam, self.cutmix_alpha > 0

    def _params_per_elem(self, batch_size):
        return self.lam.copy(), np.full(batch_size, self.cutmix_alpha > 0)


class Pixels:
    """One batch, its plans, and the peers that mix it."""

    def __init__(self, batch: int, side: int) -> None:
        self.pixels = torch.randn(batch, 3, side, side)
        self.batch, self.written_over = batch, self.pixels.clone()
        self.plans: dict[str, MixPlan] = {}
        self.timm = {(name, mode): Given(*alphas, mode=mode) for name, alphas in ALPHAS.items() for mode in MODES}
        self.torchvision = {"mixup": v2.MixUp(num_classes=10), "cutmix": v2.CutMix(num_classes=10)}

    def prepare(self, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        for mode in MODES:
            plan = sample_plan(self.batch, alpha=1.0, per_example=mode == "elem", generator=generator)
            self.plans[mode] = plan
            for name in ALPHAS:
                self.timm[name, mode].lam = plan.lam.numpy() if mode == "elem" else plan.lam[0].item()
        for transform in self.torchvision.values():
            transform._dist = SimpleNamespace(sample=lambda shape, lam=self.plans["batch"].lam[0]: lam)
        self.written_over.copy_(self.pixels)

    def by_ours(self, name: str, mode: str, rows: Rows) -> Tensor:
        return OURS[name](self.pixels, self.plans[mode], rows=rows)[0]

    def by_timm(self, name: str, mode: str, rows: Rows) -> Tensor:
        shown = self.written_over if rows == "mixed" else torch.cat([self.pixels, self.pixels])
        peer = self.timm[name, mode]
        (peer._mix_elem if mode == "elem" else peer._mix_batch)(shown[-self.batch :])
        return shown

    def by_torchvision(self, name: str, rows: Rows) -> Tensor:
        transform = self.torchvision[name]
        drawn = {"labels": None, "batch_size": self.batch, **transform.make_params([self.pixels])}
        mixed = transform.transform(self.pixels, drawn)
        return mixed if rows == "mixed" else torch.cat([self.pixels, mixed])


def add_pixels(kinds: Kinds, batch: int, side: int) -> None:
    """Mixup and CutMix, with one lam for the batch and with one for each image."""
    images = Pixels(batch, side)
    for name, mode, rows in product(ALPHAS, MODES, ("mixed", "both")):
        shown = "" if rows == "mixed" else ", clean and mixed"
        what = f"{name} {batch}x3x{side}x{side}, {MODES[mode]}{shown}"
        peers = {"timm": partial(images.by_timm, name, mode, rows)}
        if mode == "batch":
            peers["torchvision"] = partial(images.by_torchvision, name, rows)
        ours = kinds.add(f"{what}: ours", partial(images.by_ours, name, mode, rows), images.prepare)
        for peer, call in peers.items():
            theirs = kinds.add(f"{what}: {peer}", call, images.prepare)
            kinds.ratios[f"{what} / {peer}"] = (ours, theirs, 1.0)


def add_layers(kinds: Kinds) -> None:
    """Steps of a ResNet, as far as the gradient."""
    model = create_model("timm/small_resnet20", 10, channels=3)
    kinds.hooks.enter_context(attached(model))  # as through a training run, with the layers below a mix shared
    pixels, labels = torch.randn(2 * STEP_BATCH, 3, 32, 32), torch.arange(2 * STEP_BATCH) % 10

    rehearse(model, {"pixel_values": pixels}, Linear("manifold"))

    def plain(size):
        F.cross_entropy(model(pixel_values=pixels[:size]).logits, labels[:size]).backward()
        model.zero_grad()

    def mixing(level, rows):
        plan = sample_plan(STEP_BATCH, alpha=1.0)
        output = mixed_forward(model, {"pixel_values": pixels[:STEP_BATCH]}, plan, mixing=Linear(level), rows=rows)
        losses = [F.cross_entropy(logits, labels[:STEP_BATCH]) for logits in output[:2] if logits is not None]
        sum(losses).backward()
        model.zero_grad()

    kinds.calls["vanilla"] = lambda: plain(STEP_BATCH)
    kinds.calls["vanilla on 2B"] = lambda: plain(2 * STEP_BATCH)
    for level in ("embedding", "hidden:1", "hidden:2", "hidden:3"):
        kinds.calls[f"mixup at {level}"] = lambda level=level: mixing(level, "mixed")
        kinds.calls[f"logitmix at {level}"] = lambda level=level: mixing(level, "both")
        goals = (1.03, 1.02) if level == "embedding" else (1.05, 1.05)
        kinds.ratios[f"mixup at {level} / vanilla"] = (f"mixup at {level}", "vanilla", goals[0])
        kinds.ratios[f"logitmix at {level} / vanilla on 2B"] = (f"logitmix at {level}", "vanilla on 2B", goals[1])


def add_puzzles(kinds: Kinds) -> None:
    """PuzzleMix from its saliency on."""
    shapes, _ = draw_shapes(PUZZLES, 0)
    images = torch.from_numpy(shapes).permute(0, 3, 1, 2).float() / 255
    saliency = F.interpolate(torch.rand(PUZZLES, 1, 5, 5) ** 3, PUZZLE_SIZE, mode="bicubic").clamp_min(0).squeeze(1)
    plan = sample_plan(PUZZLES, alpha=1.0)
    for grid in (2, 4, 8, 16):
        what = f"puzzlemix {PUZZLES}x3x{PUZZLE_SIZE}x{PUZZLE_SIZE}, {grid} x {grid} blocks"
        ours = kinds.add(f"{what}: ours", partial(puzzlemix, images, saliency, plan, block_num=grid))
        theirs = kinds.add(f"{what}: graph cuts", partial(by_graph_cuts, images, saliency, plan, grid))
        kinds.ratios[f"{what} / graph cuts"] = (ours, theirs, 0.1)


def by_graph_cuts(images: Tensor, saliency: Tensor, plan: MixPlan, grid: int) -> Tensor:
    """The mixed images of the other side."""
    block = images.shape[-1] // grid
    salient = normalised_saliency(saliency, block)
    mask = graph_cuts(label_energy(images, salient, plan, block_num=grid)) / 2.0
    partner = plan.partner
    own = moved_by_product(images, all_pairs(salient, mask > 0))
    other = moved_by_product(images[partner], all_pairs(salient[partner], mask < 1))
    full = mask.repeat_interleave(block, 1).repeat_interleave(block, 2).unsqueeze(1)
    return full * own + (1 - full) * other


def all_pairs(saliency: Tensor, wanted: Tensor) -> Tensor:
    """The transport, FloatTensor[B, t * t, t * t]: 1 where a block (second axis) comes to a place (third)."""
    size = saliency.shape[-1]
    at = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), -1).reshape(-1, 2).float()
    distance = (at[:, None] - at).square().sum(-1) / (size - 1) ** 2
    cost = T_EPS * distance - saliency.flatten(1)[:, :, None] * wanted.flatten(1)[:, None, :].float()
    kept = torch.zeros_like(cost)
    for _ in range(size):
        bids = torch.zeros_like(cost).scatter_(2, cost.argmin(2, keepdim=True), 1.0)
        kept = bids * torch.zeros_like(cost).scatter_(1, (cost * bids).argmin(1, keepdim=True), 1.0)
        cost = cost + (bids - kept)
    return kept


def moved_by_product(images: Tensor, pairs: Tensor) -> Tensor:
    """The images with their blocks where ``pairs`` says."""
    count, channels, side, _ = images.shape
    size = round(pairs.shape[1] ** 0.5)
    block = side // size
    blocks = images.reshape(count, channels, size, block, size, block).permute(0, 2, 4, 1, 3, 5)
    moved = pairs.transpose(1, 2) @ blocks.reshape(count, size**2, -1)
    return moved.reshape(count, size, size, channels, block, block).permute(0, 3, 1, 4, 2, 5).reshape(images.shape)


def check_puzzles() -> None:
    """Refuse to time a transport that is another one than ours."""
    for grid in (2, 4, 8, 16):
        saliency = normalised_saliency(torch.rand(PUZZLES, PUZZLE_SIZE, PUZZLE_SIZE) ** 3, PUZZLE_SIZE // grid)
        wanted = torch.rand(PUZZLES, grid, grid) < 0.6
        pairs = all_pairs(saliency, wanted)
        found = torch.where(pairs.any(1), pairs.argmax(1), -1)
        if not torch.equal(found, transport_plan(saliency, wanted, T_EPS)):
            raise RuntimeError(f"the two transports of {grid} x {grid} blocks differ, so their times say nothing.")


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds that count, at least 20 for a record")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    check_puzzles()
    kinds = Kinds()
    for batch, side in SIZES:
        add_pixels(kinds, batch, side)
    add_layers(kinds)
    add_puzzles(kinds)
    times = measure(kinds.calls, kinds.seconds, options.rounds)
    for side in ("ours", "graph cuts"):
        parts = [times[name] for name in times if name.startswith("puzzlemix") and name.endswith(f": {side}")]
        times[f"puzzlemix, all four: {side}"] = [sum(each) for each in zip(*parts, strict=True)]
    kinds.ratios["puzzlemix, all four / graph cuts"] = (
        "puzzlemix, all four: ours",
        "puzzlemix, all four: graph cuts",
        0.1,
    )
    what = f"mixing of images, {options.rounds} rounds in random order, medians"
    record = record_of(what, times, kinds.ratios, "timm", "torchvision", "gco-wrapper")
    record["peak_mb"] = {name: round(memory_of(call), 2) for name, call in kinds.calls.items() if "x3x" in name}
    return save(record, options.output)


if __name__ == "__main__":
    raise SystemExit(main())
