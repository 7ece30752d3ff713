"""The same methods on images; needs `pip install "hf_logitmix[vision]"`."""

# ruff: noqa: E402
from hf_logitmix import _requirements

_requirements.require(_requirements.VISION, "hf_logitmix.vision")

from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.data import ImageData, load_images, subset
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.trainer import ImageMixTrainer

__all__ = [
    "ImageData",
    "ImageMixTrainer",
    "ImageMixTrainingArguments",
    "ImageSet",
    "create_model",
    "load_images",
    "subset",
]
