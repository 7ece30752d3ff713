"""The images of a run by what they are for: to train, to choose a checkpoint, to fit a temperature, for the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hf_logitmix.training.splits import HELD_OUT, chooses, hold_out
from hf_logitmix.vision.data import ImageData, subset, with_label_noise
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.run_arguments import ImageArguments, ImageRunArguments


@dataclass(frozen=True)
class Parts:
    """The images of a run.

    Attributes:
        data: what is left of the images to train on, and those to evaluate on, cut to what was asked for.
        calibration: what a temperature is fitted on; None where nothing was held out for that.
        sizes: split -> number of its images before they were cut.
        label_noise: what was done to the training labels, for records; None for nothing.
    """

    data: ImageData
    calibration: ImageSet | None
    sizes: Mapping[str, int]
    label_noise: str | None


def parts_of(data: ImageData, images: ImageArguments, args: ImageRunArguments) -> Parts:
    """Hold out, cut and make noisy what the arguments say.

    Raises:
        ValueError: for shares that cannot be held out, for counts that cannot be drawn, and where a checkpoint would be
            chosen on the images that the figures are of.
    """
    data = _with_validation(data, images, args)
    train, calibration = _held_out_to_calibrate(data.train, images, args)
    sizes = {data.test_split: len(data.test)}
    if data.validation is not None:
        sizes[data.validation_split] = len(data.validation)
    train = _part(train, "max_train_samples", images.max_train_samples, images.subset_seed)
    test, validation = data.test, data.validation
    if args.do_eval:
        test = _part(test, "max_eval_samples", images.max_eval_samples, images.subset_seed)
    if validation is not None and images.max_eval_samples:
        most = min(images.max_eval_samples, len(validation))
        validation = _part(validation, "max_eval_samples", most, images.subset_seed)
    noise = f"{images.label_noise:g} {images.label_noise_kind}" if images.label_noise and args.do_train else None
    if noise:
        train = with_label_noise(
            train, images.label_noise, images.label_noise_kind, args.seed, num_labels=len(data.label_names)
        )
    if data.test_split == HELD_OUT and (chosen_by := chooses(args)):
        raise ValueError(
            f"{chosen_by} would choose the model on the examples that its figures are of: pass a dataset with test "
            "images."
        )
    return Parts(replace(data, train=train, test=test, validation=validation), calibration, sizes, noise)


def _with_validation(data: ImageData, images: ImageArguments, args: ImageRunArguments) -> ImageData:
    """The same images with a share of the training images to choose a checkpoint on; for test where there are none."""
    share = images.val_split
    if not share:
        if args.do_eval and not data.test_split:
            raise ValueError(
                f"dataset {data.name} has training images alone: pass --val_split 0.1 to evaluate on a tenth of them, "
                "or --no_do_eval."
            )
        return data
    if data.validation_split:
        raise ValueError(
            f"val_split={share} and the split {data.validation_split} of {data.name} are both there: leave one of them "
            "out."
        )
    if not args.do_train:
        raise ValueError(f"val_split={share} holds out training images and there is no training: leave it out.")
    kept, held = hold_out(data.train.labels, share, images.subset_seed)
    train, others = (data.train.select(numbers.tolist()) for numbers in (kept, held))
    if not data.test_split:
        return replace(data, train=train, test=others, test_split=HELD_OUT)
    return replace(data, train=train, validation=others, validation_split=HELD_OUT)


def _held_out_to_calibrate(
    train: ImageSet, images: ImageArguments, args: ImageRunArguments
) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on, and those to fit a temperature on."""
    share = images.calibration_split
    if not share:
        return train, None
    if not args.do_train:
        raise ValueError(f"calibration_split={share} holds out training images and there is no training: leave it out.")
    named = ("calibration_split", "fit a temperature on")
    kept, held = hold_out(train.labels, share, images.subset_seed, *named)
    return train.select(kept.tolist()), train.select(held.tolist())


def _part(data: ImageSet, limit: str, count: int | None, seed: int) -> ImageSet:
    try:
        return subset(data, count, seed)
    except ValueError as error:
        raise ValueError(f"{limit}: {error}") from error
