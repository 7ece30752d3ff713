"""Compare three methods on synthetic images, with a small ResNet from scratch: offline, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_logitmix.training.demo import QUIET, check_room, compare
from hf_logitmix.vision.data import SYNTHETIC, ImageData
from hf_logitmix.vision.experiment import ImageExperiment
from hf_logitmix.vision.run_arguments import ImageArguments, ImageRunArguments

METHODS = ("vanilla", "cutmix", "logitmix_c")
DEFAULT_OUTPUT = "image_demo_output"


def run_demo(args: ImageRunArguments, data: ImageData) -> int:
    """Run the demo on synthetic images into ``args.output_dir``; the exit status."""
    output = Path(args.output_dir or DEFAULT_OUTPUT)
    check_room(output, METHODS, data.name)
    experiment = ImageExperiment(ImageArguments(dataset=SYNTHETIC, model="timm/small_resnet8"), data)

    def run(method: str, folder: Path) -> dict[str, Any] | None:
        return experiment.run(_arguments(folder, method, args.seed))

    return compare(
        METHODS,
        run,
        output,
        doing=f"training a small ResNet from scratch on {len(data.train)} synthetic images",
        title="synthetic shapes, test images",
        told=f"Synthetic images: {len(data.train)} for training and {len(data.test)} for test, one seed.",
        is_shown=args.should_save,
    )


def _arguments(output: Path, method: str, seed: int) -> ImageRunArguments:
    return ImageRunArguments(
        output_dir=str(output),
        method=method,
        seed=seed,
        num_train_epochs=15,
        per_device_train_batch_size=50,
        dataloader_drop_last=False,
        eval_strategy="no",
        **QUIET,
    )
