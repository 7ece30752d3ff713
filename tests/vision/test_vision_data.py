"""Images from idx files and folders written here, from a Hub that is played, and made up; the real Fashion-MNIST."""

import gzip
import pickle
import re
import warnings
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from helpers.data import real
from helpers.image_runs import IDX, idx_bytes
from hf_logitmix.vision import data
from hf_logitmix.vision.data import HUB, load_images, subset, with_label_noise
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.shapes import draw_shapes


def write_idx(folder, zipped=True, height=3, width=2):
    """Four training and two test images whose pixels count up; returns the pixels of both."""
    folder.mkdir(exist_ok=True)
    pixels = {}
    for part, labels in {"train": [3, 0, 9, 3], "t10k": [1, 2]}.items():
        pixels[part] = [
            [[10 * image + width * y + x for x in range(width)] for y in range(height)] for image in range(len(labels))
        ]
        for kind, rows in (("images-idx3", pixels[part]), ("labels-idx1", labels)):
            content = idx_bytes(rows)
            name = IDX[part, kind] + ".gz" * zipped
            (folder / name).write_bytes(gzip.compress(content) if zipped else content)
    return pixels


def lists(images):
    return [np.asarray(image).tolist() for image in images.images]


# ---- idx files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_come_back_to_the_byte(tmp_path, zipped):
    pixels = write_idx(tmp_path / "digits", zipped)
    found = load_images(str(tmp_path / "digits"))
    assert lists(found.train) == pixels["train"]
    assert lists(found.test) == pixels["t10k"]
    assert found.train.labels.tolist() == [3, 0, 9, 3]
    assert found.test.labels.tolist() == [1, 2]
    assert {image.mode for image in found.train.images} == {"L"}
    assert found.train.images[0].size == (2, 3)
    assert found.train.transform is None
    assert (found.name, found.image_size, found.channels) == ("digits, local files", 32, 1)
    assert found.label_names == tuple("0123456789")
    flat = [pixel / 255 for image in pixels["train"] for line in image for pixel in line]
    assert found.mean == pytest.approx((np.mean(flat),), abs=1e-6)
    assert found.std == pytest.approx((np.std(flat),), abs=1e-6)


def test_the_fingerprint_is_of_the_pixels_and_not_of_the_place(tmp_path):
    for name in ("one", "two", "three"):
        write_idx(tmp_path / name, zipped=name == "one")
    changed = bytearray((tmp_path / "three" / IDX["train", "images-idx3"]).read_bytes())
    changed[-1] ^= 1
    (tmp_path / "three" / IDX["train", "images-idx3"]).write_bytes(bytes(changed))
    one, two, three = (load_images(str(tmp_path / name)) for name in ("one", "two", "three"))
    assert one.train.fingerprint == two.train.fingerprint != three.train.fingerprint
    assert one.test.fingerprint == three.test.fingerprint != one.train.fingerprint


@pytest.mark.parametrize(("folder", "first"), [("Fashion-mnist", "T-shirt/top"), ("mnist", "0")])
def test_only_a_folder_called_fashion_gets_the_names_of_clothes(tmp_path, folder, first):
    write_idx(tmp_path / folder)
    found = load_images(str(tmp_path / folder))
    assert found.label_names[0] == first
    assert len(found.label_names) == 10


def _cut(content):
    return content[:-1]


def _turned(content):
    """Damaged in the middle of what is compressed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


DAMAGE = {
    "a gzip that ends too soon": (True, _cut, "truncated or damaged"),
    "a gzip that is damaged": (True, _turned, "truncated or damaged"),
    "bytes that end too soon": (False, _cut, "holds 23 bytes of data, and 24 by its header"),
    "too many bytes": (False, lambda content: content + b"\0", "holds 25 bytes of data, and 24 by its header"),
    "another magic": (False, lambda content: b"\0\0\x0d\3" + content[4:], "00 00 0d 03 instead of 00 00 08 03"),
    "labels for images": (False, lambda content: idx_bytes([1, 2, 3, 4]), "00 00 08 01 instead of 00 00 08 03"),
    "half a header": (False, lambda content: content[:9], "ends in its header"),
    "nothing": (False, lambda content: b"", "no idx file"),
    "sizes as of another file": (False, lambda content: content[:4] + b"\xff" * 12 + content[16:], "by its header"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_sentence_with_its_name(tmp_path, damage):
    zipped, change, says = DAMAGE[damage]
    write_idx(tmp_path, zipped)
    path = tmp_path / (IDX["train", "images-idx3"] + ".gz" * zipped)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"^{path.name} .*get it again\.$") as error:
        load_images(str(tmp_path))
    assert says in str(error.value)


def test_a_file_that_is_missing_and_labels_of_another_number(tmp_path):
    write_idx(tmp_path, zipped=False)
    (tmp_path / IDX["t10k", "labels-idx1"]).write_bytes(idx_bytes([1, 2, 3]))
    with pytest.raises(ValueError, match="2 images and 3 labels of t10k"):
        load_images(str(tmp_path))
    (tmp_path / IDX["t10k", "labels-idx1"]).unlink()
    with pytest.raises(ValueError, match="lacks t10k-labels-idx1-ubyte"):
        load_images(str(tmp_path))


def test_the_real_fashion_mnist():
    found = load_images(str(real("HF_LOGITMIX_DATA") / "fashion-mnist"))
    assert (len(found.train), len(found.test)) == (60000, 10000)
    assert np.bincount(found.train.labels).tolist() == [6000] * 10
    assert np.bincount(found.test.labels).tolist() == [1000] * 10
    assert found.mean == pytest.approx((0.2860,), abs=1e-3)
    assert found.std == pytest.approx((0.3530,), abs=1e-3)
    known = HUB["fashion_mnist"]
    assert found.mean + found.std == pytest.approx(known.mean + known.std, abs=5e-5)
    assert found.label_names[found.train.labels[0]] == "Ankle boot"
    assert (found.name, found.image_size, found.channels) == ("fashion-mnist, local files", 32, 1)
    # Trousers are narrower than pullovers: the labels belong to these images.
    trousers, pullovers = (
        np.mean([np.asarray(found.train.images[number]) for number in np.flatnonzero(found.train.labels == name)[:200]])
        for name in (1, 2)
    )
    assert trousers < pullovers


# ---- folders of classes --------------------------------------------------------------------------------------------

COLOURS = {"cat": (255, 0, 0), "dog": (0, 0, 255)}


def write_classes(folder, test="test", mode="RGB", size=(20, 10), classes=COLOURS, **more):
    """Three training and two test images a class; ``more``: split -> number."""
    for split, count in {"train": 3, test: 2, **more}.items():
        for name, colour in classes.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", size, colour).convert(mode)
                image.save(folder / split / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_folder_for_each_class(tmp_path, test):
    found = load_images(str(write_classes(tmp_path / "pets", test)))
    assert (found.test_split, found.validation, found.validation_split) == (test, None, "")
    assert (found.name, found.label_names) == ("pets, local files", ("cat", "dog"))
    assert (found.image_size, found.channels) == (32, 3)
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.test.labels.tolist() == [0, 0, 1, 1]
    assert [image.getpixel((0, 0)) for image in found.test.images] == [COLOURS["cat"]] * 2 + [COLOURS["dog"]] * 2
    assert found.mean == pytest.approx((0.5, 0, 0.5))
    assert found.std == pytest.approx((0.5, 1, 0.5))  # 1 where all pixels are alike, and nothing can be scaled
    assert found.train[3]["labels"] == 1


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_images_for_validation_beside_those_for_test(tmp_path, name):
    found = load_images(str(write_classes(tmp_path / "pets", **{name: 1})))
    assert (found.test_split, found.validation_split) == ("test", name)
    assert (len(found.train), len(found.validation), len(found.test)) == (6, 2, 4)
    assert found.validation.labels.tolist() == [0, 1]
    assert [image.getpixel((0, 0)) for image in found.validation.images] == [COLOURS["cat"], COLOURS["dog"]]
    assert len({images.fingerprint for images in (found.train, found.validation, found.test)}) == 3


def test_two_folders_for_validation_or_one_of_other_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two holds validation and val, .*keep one"):
        load_images(str(write_classes(tmp_path / "two", val=1, validation=1)))
    folder = write_classes(tmp_path / "pets", val=1)
    (folder / "val" / "dog").rename(folder / "val" / "fox")
    with pytest.raises(ValueError, match=r"train/ and val/ .* only in train/: dog; only in val/: fox\.$"):
        load_images(str(folder))


# ---- damaged images --------------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def damaged(path, damage):
    """An image that cannot be read, at a path."""
    Image.fromarray(NOISE).save(path)
    content = path.read_bytes()
    middle = len(content) // 2
    changes = {
        "cut in its pixels": content[:middle],
        "cut in its header": content[:20],
        "empty": b"",
        "a page": b"<html>not found</html>",
        "zeros": content[:middle] + bytes(len(content) - middle),
    }
    path.write_bytes(changes[damage])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
@pytest.mark.parametrize("damage", ["cut in its pixels", "cut in its header", "empty", "a page"])
def test_a_damaged_image_is_one_sentence_with_its_path(tmp_path, suffix, damage):
    folder = write_classes(tmp_path / "pets", size=(40, 40))
    path = folder / "test" / "dog" / f"9.{suffix}"
    damaged(path, damage)
    found = load_images(str(folder))
    assert found.test.images[0].size == (40, 40)
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as an image \(.*\): .*leave it out\.$"):
        found.test[4]
    path.rename(folder / "train" / "dog" / path.name)
    with pytest.raises(
        ValueError, match=rf"dog/9\.{suffix} cannot be read as an image"
    ):  # training images are looked at
        load_images(str(folder))


def test_a_png_with_a_hole_is_one_sentence_with_its_path(tmp_path):
    folder = write_classes(tmp_path / "pets", size=(40, 40))
    damaged(folder / "test" / "dog" / "9.png", "zeros")
    with pytest.raises(ValueError, match=r"dog/9\.png cannot be read as an image"):
        load_images(str(folder)).test[4]


@pytest.mark.parametrize(("size", "side"), [((32, 30), 32), ((20, 33), 64), ((64, 64), 64), ((65, 10), 224)])
def test_the_side_follows_the_largest_image(tmp_path, size, side):
    assert load_images(str(write_classes(tmp_path / "pets", size=size))).image_size == side


@pytest.mark.parametrize(("mode", "read"), [("L", "L"), ("1", "L"), ("LA", "L"), ("P", "RGB"), ("RGBA", "RGB")])
def test_every_mode_is_read_as_greyscale_or_colour(tmp_path, mode, read):
    found = load_images(str(write_classes(tmp_path / "pets", mode=mode)))
    assert {image.mode for images in (found.train, found.test) for image in images.images} == {read}
    assert (found.channels, len(found.mean), len(found.std)) == ((1,) * 3 if read == "L" else (3,) * 3)


def test_one_image_in_colour_makes_all_of_them_colour(tmp_path):
    folder = write_classes(tmp_path / "pets", mode="L")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / "train" / "dog" / "more.png")
    found = load_images(str(folder))
    assert found.channels == 3
    assert {image.mode for image in found.test.images} == {"RGB"}


def test_images_of_16_bits_are_refused(tmp_path):
    folder = write_classes(tmp_path / "pets")
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(folder / "train" / "dog" / "0.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        load_images(str(folder))


def test_the_fingerprint_of_a_folder_goes_with_it(tmp_path):
    here, moved = (write_classes(tmp_path / name / "pets") for name in ("a", "b"))
    first = load_images(str(here))
    assert load_images(str(moved)).train.fingerprint == first.train.fingerprint != first.test.fingerprint
    (moved / "train" / "dog" / "0.png").rename(moved / "train" / "dog" / "other.png")
    assert load_images(str(moved)).train.fingerprint != first.train.fingerprint


def test_train_and_test_need_the_same_classes_with_images(tmp_path):
    folder = write_classes(tmp_path / "pets")
    (folder / "test" / "dog").rename(folder / "test" / "fox")
    with pytest.raises(ValueError, match=r"only in train/: dog; only in test/: fox\.$"):
        load_images(str(folder))
    (folder / "test" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"pets/test needs .* classes empty"):
        load_images(str(folder))


@pytest.mark.parametrize("names", [("Train", "Test"), ("Training", "Testing")])
def test_splits_of_other_names_are_not_taken_for_classes(tmp_path, names):
    for name in names:
        for kind in ("cat", "dog"):
            (tmp_path / name / kind).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / name / kind / "0.png")
    with pytest.raises(ValueError, match=rf"holds {names[1]} and {names[0]}, which are no classes: call the folders t"):
        load_images(str(tmp_path))


@pytest.mark.parametrize(("inside", "says"), [([], "holds nothing"), (["train/cat", "x"], r"holds train/, x/, but")])
def test_a_folder_with_neither_says_what_it_holds(tmp_path, inside, says):
    for name in inside:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"{says}.*train-images-idx3-ubyte.*train/CLASS/\*\.png"):
        load_images(str(tmp_path))


# ---- the Hub -------------------------------------------------------------------------------------------------------


def rows(features, labels, size=28, mode="L"):
    """A dataset in memory; image number n is of the one shade 10 n."""
    images = [Image.new(mode, (size, size), 10 * n if mode == "L" else (10 * n,) * 3) for n in range(len(labels))]
    kinds = {name: images if isinstance(kind, datasets.Image) else labels for name, kind in features.items()}
    return datasets.Dataset.from_dict(kinds, features=datasets.Features(features))


@pytest.fixture
def hub(monkeypatch):
    """Puts datasets in the place of the Hub's; the list is of what was asked for."""
    asked, held = [], {}

    def load_dataset(path, name=None, *, split=None):
        asked.append((path, name, split))
        if path not in held:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub (OfflineModeIsEnabled)")
        return held[path][split] if split else held[path]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked, held


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    counted, decode = [], datasets.Image.decode_example
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *a, **k: counted.append(1) or decode(*a, **k))
    return counted


# What the cards on the Hub say: id, config, columns of images and labels, split with labels for test, classes, mode.
CARDS = {
    "mnist": ("ylecun/mnist", None, "image", "label", "test", 10, "L"),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None, "image", "label", "test", 10, "L"),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits", "image", "label", "test", 10, "RGB"),
    "cifar10": ("uoft-cs/cifar10", None, "img", "label", "test", 10, "RGB"),
    "cifar100": ("uoft-cs/cifar100", None, "img", "fine_label", "test", 100, "RGB"),
    "tiny-imagenet": ("zh-plus/tiny-imagenet", None, "image", "label", "valid", 200, "RGB"),
    "imagenet-1k": ("ILSVRC/imagenet-1k", None, "image", "label", "validation", 1000, "RGB"),
}


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("name", CARDS)
def test_a_known_dataset(hub, decoded, name, by_id):
    hub_id, config, image, label, test, classes, mode = CARDS[name]
    features = {image: datasets.Image(), label: datasets.ClassLabel(num_classes=classes)}
    if name == "cifar100":
        features["coarse_label"] = datasets.ClassLabel(num_classes=20)
    asked, held = hub
    held[hub_id] = {"train": rows(features, [3, 1, 9], mode=mode), test: rows(features, [7, 0], mode=mode)}
    found = load_images(hub_id if by_id else name)
    assert asked == [(hub_id, config, "train"), (hub_id, config, test)]
    assert decoded == []
    assert found.train.labels.tolist() == [3, 1, 9]
    assert found.test.labels.tolist() == [7, 0]
    assert decoded == []
    picture = found.train.images[2]
    assert len(decoded) == 1
    assert (picture.mode, np.asarray(picture).max(), picture.size) == (mode, 20, (28, 28))
    assert (found.name, len(found.label_names)) == (hub_id, classes)
    assert len(found.mean) == len(found.std) == found.channels == (1 if mode == "L" else 3)
    assert found.train.fingerprint == held[hub_id]["train"]._fingerprint != found.test.fingerprint


def test_sides_of_the_known_datasets():
    sides = {name: known.image_size for name, known in HUB.items()}
    assert sides == {**dict.fromkeys(CARDS, 32), "tiny-imagenet": 64, "imagenet-1k": 224}


TWO = datasets.ClassLabel(names=["left", "right"])


def test_another_hub_id_is_read_by_the_types_of_its_columns(hub, decoded):
    features = {"photo": datasets.Image(), "side": TWO, "id": datasets.Value("int64")}
    _, held = hub
    held["me/hands"] = {
        "train": rows(features, [0, 1, 1], 48, "RGB"),
        "test": rows(features, [-1, -1], 48, "RGB"),  # kept secret
        "validation": rows(features, [1, 0], 48, "RGB"),
    }
    found = load_images("me/hands")
    assert len(decoded) == 3  # the training images, which are looked at for the size
    assert (found.name, found.label_names) == ("me/hands", ("left", "right"))
    assert (found.image_size, found.channels) == (64, 3)
    assert found.test.labels.tolist() == [1, 0]
    assert found.mean == pytest.approx([10 / 255] * 3, abs=1e-6)
    assert found.std == pytest.approx([np.std([0, 10, 20]) / 255] * 3, abs=1e-6)
    assert np.asarray(found.train.images[1]).mean() == 10
    assert (found.test_split, found.validation) == ("validation", None)


def test_splits_of_the_hub_for_validation_and_for_test(hub, caplog):
    features = {"image": datasets.Image(), "label": TWO}
    _, held = hub
    held["me/hands"] = {name: rows(features, [0, 1] * n) for n, name in enumerate(("train", "valid", "test"), start=1)}
    found = load_images("me/hands")
    assert (found.test_split, found.validation_split) == ("test", "valid")
    assert [len(images) for images in (found.train, found.validation, found.test)] == [2, 4, 6]
    assert caplog.messages == []
    held["me/hands"]["test"] = rows(features, [-1, -1])
    found = load_images("me/hands")
    assert (found.test_split, found.validation, len(found.test)) == ("valid", None, 4)
    assert caplog.messages == ["split test of me/hands has no labels and is left out."]
    held["me/hands"]["val"] = rows(features, [1, 0])
    with pytest.raises(ValueError, match="me/hands holds valid and val"):
        load_images("me/hands")


def test_a_damaged_image_of_the_hub_is_named_by_its_number(hub):
    features = {"image": datasets.Image(), "label": TWO}
    _, held = hub
    test = rows(features, [0, 1, 1]).to_dict()
    test["image"][1]["bytes"] = b"no picture"
    held["me/hands"] = {
        "train": rows(features, [0, 1]),
        "test": datasets.Dataset.from_dict(test, features=datasets.Features(features), split="test"),
    }
    found = load_images("me/hands")
    with pytest.raises(ValueError, match=r"^image 1 of Dataset, split test cannot be read as an image"):
        found.test[1]
    with pytest.raises(ValueError, match=r"^image 1 of Dataset, split test cannot be read as an image"):
        found.test.select([2, 1])[1]


def test_images_can_be_sent_to_the_workers_of_a_loader(hub, tmp_path):
    _, held = hub
    features = {"image": datasets.Image(), "label": TWO}
    held["me/hands"] = {"train": rows(features, [0, 1]), "test": rows(features, [1])}
    for found in (load_images("me/hands"), load_images(str(write_classes(tmp_path / "pets")))):
        copied = pickle.loads(pickle.dumps(found.train))
        assert lists(copied) == lists(found.train)


def test_a_hub_dataset_that_does_not_fit_is_refused_with_its_columns_or_splits(hub):
    _, held = hub
    image = {"image": datasets.Image()}
    held["me/two"] = {"train": rows({**image, "fine": TWO, "coarse": TWO}, [0])}
    with pytest.raises(
        ValueError, match=r"me/two needs one label column, but has coarse, fine: name it with --label_column"
    ):
        load_images("me/two")
    held["me/none"] = {"train": rows({"label": TWO}, [0])}
    with pytest.raises(ValueError, match=r"me/none needs one image column, but has nothing: .* are label"):
        load_images("me/none")
    held["me/no_train"] = {"test": rows({**image, "label": TWO}, [0])}
    with pytest.raises(ValueError, match=r"me/no_train needs a split train, but has test"):
        load_images("me/no_train")
    held["me/gaps"] = {"train": rows({**image, "label": TWO}, [0, None]), "test": rows({**image, "label": TWO}, [0])}
    with pytest.raises(ValueError, match=r"split train of me/gaps holds labels outside 0\.\.1"):
        load_images("me/gaps")
    held["ylecun/mnist"] = {"train": rows({**image, "digit": TWO}, [0])}
    with pytest.raises(ValueError, match=r"ylecun/mnist has no column 'label' .*image, digit"):
        load_images("mnist")


@pytest.mark.parametrize("name", ["cifar10", "owner/missing"])
def test_a_hub_out_of_reach_is_one_sentence(hub, name):
    with pytest.raises(ValueError, match=r"could not be loaded from the Hub \(Couldn't reach .*synthetic or a folder"):
        load_images(name)


@pytest.mark.parametrize("name", ["cifar", "", "/no/such/folder", "a/b/c", "./here"])
def test_a_wrong_name_lists_the_names_and_the_layouts(hub, name):
    with pytest.raises(ValueError, match=f"^dataset={re.escape(repr(name))} is not known") as error:
        load_images(name)
    text = str(error.value)
    assert hub[0] == []
    assert [part for part in ["synthetic", *HUB, "owner/name", "idx3", "train/CLASS"] if part not in text] == []


def test_a_folder_goes_before_a_hub_id_and_after_a_short_name(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "me" / "pets")
    assert load_images("me/pets").name == "pets, local files"
    write_idx(tmp_path / "mnist")
    with pytest.raises(ValueError, match="ylecun/mnist"):
        load_images("mnist")
    assert load_images("./mnist").name == "mnist, local files"


# ---- made-up images ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_images("synthetic")


def arrays(images):
    return np.stack([np.asarray(image) for image in images.images])


def test_synthetic_shapes(shapes):
    assert shapes.name == "synthetic shapes (made up by hf_logitmix)"
    for images, count in ((shapes.train, 2000), (shapes.test, 500)):
        assert np.bincount(images.labels).tolist() == [count // 10] * 10
        assert arrays(images).shape == (count, 32, 32, 3)
        assert {image.mode for image in images.images} == {"RGB"}
    assert (len(shapes.label_names), shapes.image_size, shapes.channels) == (10, 32, 3)
    pixels = arrays(shapes.train) / 255
    assert shapes.mean == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-6)
    assert shapes.std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-6)
    assert not {image.tobytes() for image in arrays(shapes.train)} & {image.tobytes() for image in arrays(shapes.test)}


def test_synthetic_shapes_are_a_function_of_the_seed():
    (one, labels), (again, same), (other, _) = (draw_shapes(50, seed) for seed in (3, 3, 4))
    assert (one == again).all()
    assert (labels == same).all()
    assert (one != other).any()


def test_synthetic_shapes_can_be_learned_but_not_by_looking_at_single_pixels(shapes):
    train, test = (arrays(images).reshape(len(images), -1) / 255 for images in (shapes.train, shapes.test))
    model = LogisticRegression(C=1e-3, max_iter=200).fit(train, shapes.train.labels)
    assert 0.2 < model.score(test, shapes.test.labels) < 0.95


# ---- parts and noise -----------------------------------------------------------------------------------------------


def numbered(sizes, seed=0):
    """Images that are their own numbers, so many of each class, in random order."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return ImageSet(list(range(len(labels))), labels, fingerprint="numbers")


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([60, 30, 10], 10, [6, 3, 1]),
        ([60, 30, 10], 100, [60, 30, 10]),
        ([500, 500], 7, [4, 3]),
        ([990, 5, 5], 10, [8, 1, 1]),  # the small ones would have none
        ([50, 0, 50], 4, [2, 0, 2]),  # a class without images
        ([1, 1, 1], 3, [1, 1, 1]),
        ([66, 34], 10, [7, 3]),
    ],
)
def test_a_part_keeps_the_shares_of_the_classes(sizes, count, expected):
    whole = numbered(sizes)
    part = subset(whole, count, seed=1)
    assert np.bincount(part.labels, minlength=len(sizes)).tolist() == expected
    chosen = list(part.images)
    assert len(set(chosen)) == count
    assert whole.labels[chosen].tolist() == part.labels.tolist()


def test_parts_are_within_one_of_their_shares():
    sizes = np.random.default_rng(0).integers(20, 200, 17)
    for count in (40, 100, 333, int(sizes.sum()) - 1):
        got = np.bincount(subset(numbered(sizes), count, seed=0).labels)
        assert got.sum() == count
        assert (abs(got - count * sizes / sizes.sum()) < 1).all()


def test_a_part_is_a_function_of_the_seed():
    whole = numbered([50, 50])
    one, again, other = (subset(whole, 20, seed) for seed in (1, 1, 2))
    assert list(one.images) == list(again.images) != list(other.images)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert subset(whole, None, 1) is whole


@pytest.mark.parametrize("count", [0, 2, -1, 101])
def test_a_part_that_is_not_possible_is_refused(count):
    with pytest.raises(ValueError, match=rf"count={count}: .* between 3, one a class, and 100 examples"):
        subset(numbered([60, 30, 10]), count, seed=0)


@pytest.mark.parametrize("kind", ["uniform", "pairwise"])
def test_label_noise_changes_training_labels_alone(shapes, kind):
    clean, test = shapes.train.labels.copy(), shapes.test.labels.copy()
    noisy = with_label_noise(shapes.train, 0.25, kind, seed=0, num_labels=10)
    assert (noisy.labels != clean).sum() == 500
    assert (shapes.train.labels == clean).all()
    assert (shapes.test.labels == test).all()
    assert noisy.images is shapes.train.images
    partners = Counter(zip(clean[noisy.labels != clean], noisy.labels[noisy.labels != clean], strict=True))
    assert len(partners) == 10 if kind == "pairwise" else len(partners) > 80
    assert isinstance(noisy[0]["labels"], int)


def test_label_noise_keeps_the_transform():
    whole = numbered([5, 5]).with_transform(torch.tensor)
    assert with_label_noise(whole, 0.5, "uniform", 0, 2).transform is torch.tensor


def test_the_known_names_are_the_modules():
    assert set(CARDS) == set(HUB)
    assert data.SYNTHETIC not in HUB
