"""Images a second: our folders of images beside torchvision's ImageFolder, with the same transforms.

    python benchmarks/image_loading.py

A temporary folder is filled with synthetic JPEGs of 224 pixels, smooth noise in two classes. One round reads all of
them once by each kind, in batches, after the same seed; see timing.py. Ours are the images of `load_images`, with
`image_transform` and the collator of `ImageMixTrainer`; theirs an ImageFolder with the same steps and the default
collator. The result goes to image_loading.json beside this file.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import measure, record_of, save, seconds_of
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose

from hf_logitmix.vision.data import load_images
from hf_logitmix.vision.images import collate_images
from hf_logitmix.vision.transforms import image_transform

COUNT, SIDE, BATCH, GOAL = 256, 224, 32, 1.05
WORKERS = (0, 2)


def write_images(folder: Path) -> None:
    """JPEGs for training, and the few for testing without which a folder is none of ours."""
    rng = np.random.default_rng(0)
    for split, count in (("train", COUNT), ("test", 2)):
        for number in range(count):
            path = folder / split / f"class_{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            rough = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
            rough.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)


def read_all(loader: DataLoader) -> None:
    """One pass over the images."""
    seen = sum(len(next(iter(batch.values())) if isinstance(batch, dict) else batch[0]) for batch in loader)
    if seen != COUNT:
        raise RuntimeError(f"{seen} of {COUNT} images were read.")


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds that count, at least 20 for a record")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    calls, ratios = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        data = load_images(folder)
        for is_training in (True, False):
            transform = image_transform(SIDE, data.mean, data.std, is_training=is_training)
            ours = data.train.with_transform(transform)
            theirs = ImageFolder(Path(folder) / "train", transform=Compose(transform.transforms[1:]))  # colours are RGB
            for workers in WORKERS:
                what = f"{'training' if is_training else 'evaluation'}, {workers} workers"
                shared = {"batch_size": BATCH, "shuffle": is_training, "num_workers": workers}
                calls[f"{what}: ours"] = partial(read_all, DataLoader(ours, collate_fn=collate_images, **shared))
                calls[f"{what}: ImageFolder"] = partial(read_all, DataLoader(theirs, **shared))
                ratios[f"{what} / ImageFolder"] = (f"{what}: ours", f"{what}: ImageFolder", GOAL)

        def seconds(name: str, number: int) -> float:
            random.seed(number)
            torch.manual_seed(number)
            return seconds_of(calls[name])

        times = measure(calls, seconds, options.rounds, warm_up=1)
    what = f"{COUNT} synthetic JPEGs of {SIDE} pixels, {options.rounds} rounds in random order, medians"
    record = record_of(what, times, ratios, "timm", "torchvision", "pillow")
    record["images_per_second"] = {name: COUNT / seconds for name, seconds in record["median_seconds"].items()}
    status = save(record, options.output)
    for name, rate in record["images_per_second"].items():
        print(f"{name:<34}{rate:7.0f} images/s")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
