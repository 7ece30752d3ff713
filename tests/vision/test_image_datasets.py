"""Every ordinary dataset of images trains as rows made by hand do; others, and damaged files, are one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder
from transformers import DefaultDataCollator, default_data_collator

from helpers.data import Lazy
from helpers.images import IMAGES, MEAN, STD, InOrder, Tiny, image_arguments, images, logged, tensors
from hf_logitmix import MixCollator
from hf_logitmix.vision import ImageMixTrainer, ImageSet
from hf_logitmix.vision.images import collate_images

COUNT = 12
LABELS = [number // 4 for number in range(COUNT)]  # as a folder for each class has them
PICTURES = images(COUNT).images
NORMALISE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
BYTES = transforms.Normalize((102, 127, 153), (51, 64, 76))


def by_hand() -> tuple[torch.Tensor, torch.Tensor]:
    """FloatTensor[12, 3, 32, 32], normalised without any transform, and the labels."""
    return tensors(ImageSet(PICTURES, LABELS))[0], torch.tensor(LABELS)


class Pairs(Dataset):
    """A dataset as anybody writes it."""

    def __init__(self, transform: Callable | None = None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index):
        image = PICTURES[index]
        return image if self.transform is None else self.transform(image), LABELS[index]


def folder_of(path: Path) -> Path:
    for number, (image, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        (path / "abc"[label]).mkdir(parents=True, exist_ok=True)
        image.save(path / "abc"[label] / f"{number:02}.png")
    return path


def paths_of(path: Path) -> list[Path]:
    return sorted(folder_of(path).glob("*/*.png"))


def table(transform: Callable | None = None) -> datasets.Dataset:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abc")), "id": datasets.Value("int64")}
    rows = {"image": PICTURES, "label": LABELS, "id": list(range(COUNT))}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    return data if transform is None else data.with_transform(transform)


def pixels_added(batch):
    return {**batch, "pixel_values": [NORMALISE(image) for image in batch["image"]]}


def pixels_alone(batch):
    return {"pixel_values": [NORMALISE(image) for image in batch["image"]], "labels": batch["label"]}


def in_their_place(batch):
    return {**batch, "image": [NORMALISE(image) for image in batch["image"]]}


def bytes_of() -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(image)) for image in PICTURES])


KINDS: dict[str, Callable[[Path], object]] = {
    "pairs of tensors": lambda path: Pairs(NORMALISE),
    "pairs of images": lambda path: Pairs(),
    "TensorDataset": lambda path: TensorDataset(*by_hand()),
    "TensorDataset of bytes": lambda path: TensorDataset(bytes_of().permute(0, 3, 1, 2), torch.tensor(LABELS)),
    "ConcatDataset of tensors": lambda path: ConcatDataset([TensorDataset(*by_hand())]),
    "Subset": lambda path: Subset(Pairs(NORMALISE), range(COUNT)),
    "torchvision": lambda path: ImageFolder(str(folder_of(path))),
    "torchvision, transformed": lambda path: ImageFolder(str(folder_of(path)), NORMALISE),
    "timm": lambda path: timm.data.create_dataset("", str(folder_of(path))),
    "timm, transformed": lambda path: timm.data.create_dataset("", str(folder_of(path)), transform=NORMALISE),
    "datasets": lambda path: table(),
    "datasets, with_transform": lambda path: table(pixels_added),
    "datasets, labels made by a transform": lambda path: table(pixels_alone),
    "datasets, transformed in their place": lambda path: table(in_their_place),
    "datasets, with a transform that does nothing": lambda path: table(lambda batch: batch),
    "ConcatDataset of datasets": lambda path: ConcatDataset([table()]),
    "list of pairs": lambda path: list(zip(PICTURES, LABELS, strict=True)),
    "list of paths with classes": lambda path: list(zip(map(str, paths_of(path)), LABELS, strict=True)),
    "list of rows": lambda path: [{"image": i, "label": k} for i, k in zip(PICTURES, LABELS, strict=True)],
    "rows that come late": lambda path: Lazy([{"img": np.array(i), "label": k} for i, k in Pairs()]),
    "ImageSet of an array": lambda path: ImageSet(bytes_of().numpy(), LABELS),
    "ImageSet of a tensor": lambda path: ImageSet(bytes_of().permute(0, 3, 1, 2), LABELS),
    "ImageSet of floats": lambda path: ImageSet(by_hand()[0], LABELS),
    "ImageSet of paths": lambda path: ImageSet(paths_of(path), LABELS),
    "ImageSet of pairs": lambda path: ImageSet(list(zip(PICTURES, LABELS, strict=True))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_is_read_as_by_hand(tmp_path, kind):
    """Its predictions and its first loss are those of tensors that were normalised by hand, in the same order."""
    data = KINDS[kind](tmp_path / "images")
    args = image_arguments(tmp_path, max_steps=1, per_device_train_batch_size=4, no_aug=True)
    trainer = InOrder(model=Tiny(), args=args, method="vanilla", train_dataset=data, num_labels=3, **IMAGES)
    pixels, labels = by_hand()
    found = trainer.predict(data)
    np.testing.assert_allclose(found.predictions, Tiny().eval()(pixels).detach(), atol=1e-5)
    assert found.label_ids.tolist() == LABELS
    trainer.train()
    assert logged(trainer, "loss") == pytest.approx([F.cross_entropy(Tiny()(pixels[:4]), labels[:4]).item()], abs=1e-4)


def trainer_of(data, folder, collator=None, **options):
    """A trainer that is not trained; ``data`` is for training."""
    args = image_arguments(folder, per_device_train_batch_size=4, no_aug=True)
    known = {**IMAGES, "num_labels": 3, "method": "vanilla", **options}
    return ImageMixTrainer(model=Tiny(), args=args, train_dataset=data, data_collator=collator, **known)


def labels_of(trainer) -> list[int]:
    return [int(trainer.train_dataset[number]["labels"]) for number in range(len(trainer.train_dataset))]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_arrays_of_one_channel_and_of_three_are_the_same_pictures(tmp_path, mode):
    """[H, W], [1, H, W] and the picture itself; grey pictures for a model of three channels."""
    picture = PICTURES[0].convert(mode)
    array = np.array(picture)
    tensor = torch.from_numpy(array)[None] if mode == "L" else torch.from_numpy(array).permute(2, 0, 1)
    trainer = trainer_of(Pairs(), tmp_path)
    found = trainer.predict(ImageSet([picture, array, tensor], [0, 0, 0])).predictions
    expected = Tiny().eval()(NORMALISE(picture.convert("RGB"))[None]).detach()
    np.testing.assert_allclose(found, expected.expand(3, -1), atol=1e-5)


def test_parts_that_are_drawn_at_random_keep_image_and_label_together(tmp_path):
    part, _ = random_split(Pairs(NORMALISE), [7, 5], torch.Generator().manual_seed(0))
    rows = trainer_of(part, tmp_path).train_dataset
    for place, number in enumerate(part.indices):
        assert torch.equal(rows[place]["pixel_values"], NORMALISE(PICTURES[number]))
        assert rows[place]["labels"] == LABELS[number]


class Renamed(ImageFolder):
    """Its labels are not its targets."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, 2 - label


class Turned(Subset):
    """A part with a transform of its own, as is often written."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return NORMALISE(image.rotate(180)), label

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_what_a_dataset_gives_is_never_bypassed(tmp_path):
    """Labels are those of its examples, whatever else it holds; a part's own transform is applied."""
    folder = folder_of(tmp_path / "images")
    mirrored = [2 - label for label in LABELS]
    assert labels_of(trainer_of(Renamed(str(folder)), tmp_path)) == mirrored
    breeds = ImageFolder(str(folder))
    breeds.targets = list(range(len(LABELS)))  # as OxfordIIITPet keeps breeds and gives cats and dogs
    assert labels_of(trainer_of(breeds, tmp_path)) == LABELS
    swapped = ImageFolder(str(folder), target_transform=lambda label: 2 - label)
    assert labels_of(trainer_of(swapped, tmp_path)) == mirrored
    assert labels_of(trainer_of(ConcatDataset([swapped, Renamed(str(folder))]), tmp_path)) == 2 * mirrored
    turned = trainer_of(Turned(ImageFolder(str(folder)), [5, 2]), tmp_path).train_dataset[0]["pixel_values"]
    assert torch.equal(turned, NORMALISE(PICTURES[5]).flip(1, 2))


def test_a_file_that_timm_skips_takes_its_label_with_it(tmp_path):
    """timm gives the next image in the place of one that is damaged."""
    folder = folder_of(tmp_path / "images")
    (folder / "a" / "03.png").write_bytes(b"no picture")
    data = timm.data.create_dataset("", str(folder))
    assert labels_of(trainer_of(data, tmp_path)) == [0, 0, 0, 1, *LABELS[4:]]


@pytest.mark.parametrize("method", ["infogain", "mcel"])
def test_classes_are_counted_where_labels_come_with_the_images(tmp_path, method):
    """The rows of the targets are those of labels that are known beforehand."""
    found = []
    for data in (Pairs(), ImageSet(PICTURES, LABELS)):
        args = image_arguments(tmp_path / f"{len(found)}", max_steps=1)
        trainer = ImageMixTrainer(model=Tiny(), args=args, train_dataset=data, method=method, num_labels=3, **IMAGES)
        trainer.train()
        found.append(trainer.method_in_training.targets.matrix(3))
    torch.testing.assert_close(*found)


def collate_pairs(pairs):
    pixels, labels = zip(*pairs, strict=True)
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


def test_a_collator_of_the_users_gets_what_the_dataset_gives(tmp_path):
    trainer = trainer_of(Pairs(NORMALISE), tmp_path, collate_pairs)
    trainer.train()
    expected = trainer.model.eval()(by_hand()[0]).logits.detach()
    np.testing.assert_allclose(trainer.predict(Pairs(NORMALISE)).predictions, expected, atol=1e-5)


@pytest.mark.parametrize("collator", [DefaultDataCollator(), MixCollator(DefaultDataCollator(), "mixup")])
def test_collators_of_rows_get_rows(tmp_path, collator):
    trainer_of(Pairs(NORMALISE), tmp_path, collator, method="mixup").train()


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
@pytest.mark.parametrize("more", [{}, {"labels": 1}, {"labels": [0.5, 0.5], "sample_weight": 2.0}])
def test_images_are_collated_as_by_transformers(kind, more):
    pixels = torch.rand(3, 2, 4, 5)
    rows = [{"pixel_values": image if kind is torch.Tensor else image.numpy(), **more} for image in pixels]
    found, expected = collate_images(rows), default_data_collator(rows)
    assert torch.equal(found["pixel_values"], pixels)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_worker_stacks_images_in_the_memory_that_it_shares():
    """A copy of each batch less: other collators stack them in their own memory, which is copied over afterwards."""
    loader = DataLoader(images(4).with_transform(NORMALISE), 4, collate_fn=told_where, num_workers=1)
    assert list(loader) == [{"ours": True, "transformers'": False}]


def told_where(rows):
    collators = {"ours": collate_images, "transformers'": default_data_collator}
    return {name: collate(rows)["pixel_values"].is_shared() for name, collate in collators.items()}


def test_looking_at_images_leaves_random_numbers_alone(tmp_path):
    """A transform that draws leaves the generators as one that does not."""
    states = []
    for transform in (NORMALISE, lambda image: NORMALISE(image) + torch.rand(()) + random.random()):
        trainer_of(Pairs(transform), tmp_path)
        states.append((torch.get_rng_state(), random.getstate()))
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]


# ---- what is refused -------------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Pairs(NORMALISE))


def of_sizes(*sizes: tuple[int, int]) -> list:
    return [(torch.rand(3, *size), 0) for size in sizes]


def two_pictures():
    kinds = {"image": datasets.Image(), "mask": datasets.Image(), "label": datasets.Value("int64")}
    rows = {"image": PICTURES, "mask": PICTURES, "label": LABELS}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


def unlabelled():
    return table().rename_column("label", "kind").cast_column("kind", datasets.Value("int64"))


# What is passed, and what the sentence names.
REFUSED: dict[str, tuple[Callable[[], object], list[str]]] = {
    "DatasetDict": (
        lambda: datasets.DatasetDict(train=table(), test=table()),
        ["DatasetDict", "train, test", "one of"],
    ),
    "a loader": (lambda: DataLoader(Pairs(NORMALISE)), ["DataLoader", ".dataset"]),
    "a name": (lambda: "cifar10", ["str", "dataset"]),
    "triples": (lambda: [(image, 1, 2.0) for image in PICTURES], ["Image, int, float", "(image, class)"]),
    "texts": (lambda: [("nice", "day")] * 4, ["str, str", "(image, class)"]),
    "vectors": (lambda: TensorDataset(torch.rand(4, 784), torch.zeros(4).long()), ["[784]", "(image, class)"]),
    "boxes": (lambda: [(image, {"boxes": []}) for image in PICTURES], ["Image, dict", "(image, class)"]),
    "images alone": (lambda: PICTURES, ["Image", "class"]),
    "columns without a label": (lambda: [{"image": image, "kind": 1} for image in PICTURES], ["image (", "kind (int)"]),
    "a table without a label": (unlabelled, ["image", "kind", "label columns []"]),
    "a table with two images": (two_pictures, ["['image', 'mask']", "remove_columns"]),
    "columns without an image": (lambda: [{"input_ids": [1], "label": 1}] * 4, ["input_ids (list)", "label (int)"]),
    "a transform that forgets the label": (
        lambda: table(lambda batch: {"image": batch["image"]}),
        ["Dataset gives rows with image (", "`label`"],
    ),
    "timm's stream": (lambda: timm.data.IterableImageDataset("", reader=[]), ["IterableImageDataset", "stream"]),
    "floats in an array": (lambda: [(np.zeros((32, 32, 3)), 0)] * 4, ["float64 [32, 32, 3]", "uint8"]),
    "channels first in an array": (lambda: ImageSet(np.zeros((4, 3, 32, 32), np.uint8), [0] * 4), ["32 channels"]),
    "several sizes": (lambda: of_sizes((32, 32), (32, 28), (32, 32)), ["[3, 32, 28], [3, 32, 32]", "one size"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_images_with_labels_is_one_sentence_before_training(tmp_path, case):
    make, says = REFUSED[case]
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        trainer_of(make(), tmp_path)
    assert [part for part in says if part not in str(error.value)] == []


def test_a_size_that_no_look_found_is_named_in_training(tmp_path):
    """Of 50 examples, number 1 is not among the 16 that are looked at."""
    trainer = trainer_of(of_sizes((32, 32), (30, 32), *[(32, 32)] * 48), tmp_path)
    with pytest.raises(ValueError, match=r"\[3, 30, 32\], \[3, 32, 32\]: .* one size"):
        trainer.train()


def test_sizes_of_evaluation_images_are_looked_at_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"eval_dataset two .*\[3, 32, 28\]"):
        trainer_of(Pairs(), tmp_path, eval_dataset={"one": Pairs(), "two": of_sizes((32, 28), (32, 32))})


def test_a_stream_of_pairs_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"an example of the dataset is tuple: .*pixel_values"):
        trainer_of(Stream(), tmp_path).train()


# ---- mean and deviation ----------------------------------------------------------------------------------------------


def test_statistics_of_bytes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mean=\(102, .*0\.\.255: divide"):
        trainer_of(Pairs(), tmp_path, mean=(102, 127, 153), std=(51, 64, 76))


DARK = [Image.fromarray(np.array(image) // 128) for image in PICTURES]  # bytes of 0 and 1
FLAT = {
    "normalised by statistics of bytes": (lambda: Pairs(transforms.Compose([transforms.ToTensor(), BYTES])), {}),
    "divided by 255 twice": (lambda: Pairs(transforms.Compose([NORMALISE, lambda image: image / 255])), {}),
    "levels of 0 and 1": (lambda: ImageSet(DARK, LABELS), {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
    "rows": (lambda: [{"pixel_values": torch.full((3, 32, 32), 0.7), "labels": 0}] * 4, {}),
}


@pytest.mark.parametrize("case", FLAT)
def test_images_of_nearly_one_colour_are_refused(tmp_path, case):
    make, options = FLAT[case]
    with pytest.raises(ValueError, match=r"nearly one colour .* standard deviation"):
        trainer_of(make(), tmp_path, **options)


def test_images_that_differ_from_one_another_alone_are_not_refused(tmp_path):
    """Each of them is of one colour."""
    trainer_of(ImageSet([Image.new("RGB", (32, 32), (20 * n,) * 3) for n in range(COUNT)], LABELS), tmp_path)


@pytest.mark.parametrize("size", [0, (32, 0), -1])
def test_a_size_of_nothing_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=r"image_size=.* at least 1"):
        trainer_of(Pairs(), tmp_path, image_size=size)


# ---- damaged files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torchvision", "paths"])
def test_a_damaged_file_is_named(tmp_path, kind):
    folder = folder_of(tmp_path / "images")
    path = folder / "b" / "05.png"
    path.write_bytes(path.read_bytes()[:200])
    data = ImageFolder(str(folder)) if kind == "torchvision" else ImageSet(sorted(folder.glob("*/*.png")), LABELS)
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as an image"):
        trainer_of(data, tmp_path)


def test_a_damaged_image_of_a_table_is_named_by_its_number(tmp_path):
    folder = folder_of(tmp_path / "images")
    (folder / "b" / "05.png").write_bytes(b"no picture")
    rows = {"image": [str(path) for path in sorted(folder.glob("*/*.png"))], "label": LABELS}
    data = datasets.Dataset.from_dict(rows, split="train").cast_column("image", datasets.Image())
    with pytest.raises(ValueError, match=r"^image 5 of Dataset, split train cannot be read as an image"):
        trainer_of(data, tmp_path)
