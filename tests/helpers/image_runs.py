"""Runs of the command line for images, on pictures that are written to a folder."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import hf_logitmix.vision.train as script

IDX = {(part, kind): f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")}


def idx_bytes(rows):
    """The idx format by hand: magic, sizes, bytes."""
    shape, flat = [], rows
    while isinstance(flat, list):
        shape.append(len(flat))
        flat = flat[0]
    body = rows if len(shape) == 1 else [pixel for image in rows for line in image for pixel in line]
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(body)


NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


QUIET = ["--disable_tqdm", "True", "--use_cpu", "True", "--logging_strategy", "no"]


def write_pictures(folder: Path, classes: int, train: int, test: int, side: int) -> Path:
    """Noise whose mean colour tells the class, as train/CLASS/*.png and test/CLASS/*.png."""
    rng = np.random.default_rng(classes)
    colours = rng.uniform(60, 190, (classes, 3))
    for split, count in (("train", train), ("test", test)):
        for name, colour in zip(NAMES[:classes], colours, strict=False):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(colour, 45, (side, side, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def read_pictures(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in [0, 1], [N, H, W, 3], and classes, in the order of the files' names."""
    paths = sorted((folder / split).glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]) / 255
    return pixels, np.array([NAMES.index(path.parent.name) for path in paths])


def argv(data, output, *more: str) -> list[str]:
    fixed = ["--dataset", str(data), "--model", "timm/small_resnet8", "--output_dir", str(output)]
    sizes = ["--image_size", "16", "--per_device_train_batch_size", "8", "--num_train_epochs", "1"]
    return [*fixed, *sizes, *QUIET, *more]


def record(output: Path) -> dict:
    def refuse(value):
        raise AssertionError(f"{value} is no JSON")

    return json.loads((output / "all_results.json").read_text(), parse_constant=refuse)


def run(data, output: Path, *more: str) -> dict:
    assert script.main(argv(data, output, *more)) == 0
    return record(output)


def logits_of(output: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(output / "eval_logits.npz") as saved:
        return saved["logits"], saved["labels"]


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model.safetensors")
