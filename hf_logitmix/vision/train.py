"""Train an image classifier with any method of hf_logitmix.

hf-logitmix images --demo
hf-logitmix images --dataset cifar10 --model timm/small_resnet18 --method logitmix_c --output_dir out
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from hf_logitmix import METHODS
from hf_logitmix.commands.arguments import ArgumentsParser
from hf_logitmix.commands.main import main as start
from hf_logitmix.training.command_line import check_what_is_done, checkpoint_to_resume, report
from hf_logitmix.vision.data import SYNTHETIC, ImageData, load_images
from hf_logitmix.vision.demo import run_demo
from hf_logitmix.vision.experiment import ImageExperiment, ImageRunTrainer, accuracies, scores
from hf_logitmix.vision.run_arguments import ImageArguments, ImageRunArguments
from hf_logitmix.vision.timm_names import translate

__all__ = ["ImageArguments", "ImageRunArguments", "ImageRunTrainer", "accuracies", "main", "parser", "run", "scores"]

logger = logging.getLogger(__name__)


def parser() -> ArgumentsParser:
    """What reads the command line."""
    return ArgumentsParser((ImageArguments, ImageRunArguments), "hf-logitmix images", __doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    words, notes = translate(sys.argv[1:] if argv is None else argv)
    images, args = parser().parse(words)
    for note in notes if args.process_index == 0 else ():
        logger.warning("%s", note)
    if args.method is not None and args.method not in METHODS:
        raise ValueError(f"method={args.method!r} is unknown: pass one of {', '.join(METHODS)}.")
    if images.demo:
        return run_demo(args, load_images(SYNTHETIC))
    if images.dataset is None or images.model is None:
        raise ValueError("--dataset and --model are needed, or --demo for the offline demo.")
    if not args.output_dir:
        raise ValueError("--output_dir is needed: the folder where the run leaves its model and results.")
    check_what_is_done(args)
    args.resume_from_checkpoint = checkpoint_to_resume(args)
    with args.main_process_first(desc="load data"):
        data = load_images(images.dataset, images.image_column, images.label_column)
    return report(run(images, args, data), args)


def run(images: ImageArguments, args: ImageRunArguments, data: ImageData) -> dict[str, Any] | None:
    """One run; see `ImageExperiment.run`."""
    return ImageExperiment(images, data).run(args)


if __name__ == "__main__":
    start(["images", *sys.argv[1:]])
