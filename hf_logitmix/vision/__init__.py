"""The same methods on images; needs `pip install "hf_logitmix[vision]"`."""

try:
    import timm  # noqa: F401
    import torchvision  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'hf_logitmix.vision needs {error.name}: pip install "hf_logitmix[vision]".', name=error.name
    ) from error

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
