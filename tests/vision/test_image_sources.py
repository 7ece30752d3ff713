"""Tables of images, folders of save_to_disk and classes without splits give the pixels that were written."""

import csv
import json
import os

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import timm.data
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from helpers.image_runs import argv, record, run
from helpers.images import image_arguments
from hf_logitmix.vision import ImageMixTrainer, create_model, load_images
from hf_logitmix.vision import train as script

NAMES = ("ant", "bee", "cat")
COUNTS = {"train": 12, "val": 3, "test": 6}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with SPLIT/NUMBER.png of noise, the class of number n is n modulo 3; and what they hold."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    pixels = {split: rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8) for split, count in COUNTS.items()}
    for split, images in pixels.items():
        (folder / split).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / split / f"{number:02}.png")
    return folder, pixels


def name_of(number):
    return NAMES[number % 3]


def write_csvs(folder, pictures, splits=COUNTS, **columns):
    """Tables with paths from their own folder, and with names of classes."""
    folder.mkdir()
    (folder / "png").symlink_to(pictures)
    for split in splits:
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", columns.get("image", "path"), columns.get("label", "label")])
            writer.writerows([[n, f"png/{split}/{n:02}.png", name_of(n)] for n in range(COUNTS[split])])
    return folder


def table(pictures, split, labels=None):
    features = datasets.Features({"img": datasets.Image(), "label": labels or datasets.Value("string")})
    paths = sorted((pictures / split).glob("*.png"))
    rows = {
        "img": [{"path": None, "bytes": path.read_bytes()} for path in paths],
        "label": [name_of(n) if labels is None else n % 3 for n in range(len(paths))],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def of_csvs(folder, pictures):
    return write_csvs(folder / "tables", pictures)


def of_parquet(folder, pictures):
    (folder / "tables").mkdir()
    for split in COUNTS:
        table(pictures, split).to_parquet(str(folder / "tables" / f"{split}.parquet"))
    return folder / "tables"


def of_parquet_as_others_write_it(folder, pictures):
    (folder / "tables").mkdir()
    for split in COUNTS:
        content = [path.read_bytes() for path in sorted((pictures / split).glob("*.png"))]
        columns = {"picture": content, "target": [name_of(n) for n in range(len(content))]}
        pyarrow.parquet.write_table(pa.table(columns), folder / "tables" / f"{split}.parquet")
    return folder / "tables"


def of_save_to_disk(folder, pictures):
    kinds = {"train": NAMES, "val": NAMES[::-1], "test": NAMES}  # a split may have its classes in another order
    splits = {}
    for split, names in kinds.items():
        label = datasets.ClassLabel(names=list(names))
        data = table(pictures, split)
        splits[split] = data.map(lambda row, label=label: {"label": label.str2int(row["label"])}).cast_column(
            "label", label
        )
    datasets.DatasetDict(splits).save_to_disk(folder / "tables")
    return folder / "tables"


SOURCES = {made.__name__: made for made in (of_csvs, of_parquet, of_parquet_as_others_write_it, of_save_to_disk)}


@pytest.mark.parametrize("source", SOURCES)
def test_a_table_gives_the_images_in_it(tmp_path, pictures, source):
    files, pixels = pictures
    found = load_images(str(SOURCES[source](tmp_path, files)))
    assert (found.name, found.label_names) == ("tables, local files", NAMES)
    assert (found.image_size, found.channels) == (32, 3)
    assert (found.test_split, found.validation_split) in [("test", "val"), ("test", "validation")]
    for images, split in ((found.train, "train"), (found.validation, "val"), (found.test, "test")):
        assert np.array_equal(np.stack([np.asarray(image) for image in images.images]), pixels[split])
        assert images.labels.tolist() == [n % 3 for n in range(COUNTS[split])]
    assert found.mean == pytest.approx(pixels["train"].mean((0, 1, 2)) / 255, abs=1e-6)
    assert len({images.fingerprint for images in (found.train, found.validation, found.test)}) == 3


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder", "train/"])
def test_training_images_alone_have_no_test_split(tmp_path, pictures, kind):
    files, pixels = pictures
    if kind == "csv":
        path = write_csvs(tmp_path / "tables", files, ["train"], image="photo", label="kind") / "train.csv"
        found = load_images(str(path), "photo", "kind")
    elif kind == "parquet":
        path = tmp_path / "train.parquet"
        table(files, "train").to_parquet(str(path))
        found = load_images(str(path))
    else:
        root = tmp_path / "pets" / ("train" if kind == "train/" else "")
        for n, image in enumerate(pixels["train"]):
            (root / name_of(n)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / name_of(n) / f"{n:02}.png")
        path = tmp_path / "pets"
        found = load_images(str(path))
    order = range(12) if kind in ("csv", "parquet") else sorted(range(12), key=lambda n: (n % 3, n))
    assert np.array_equal(np.stack([np.asarray(image) for image in found.train.images]), pixels["train"][list(order)])
    assert found.train.labels.tolist() == [n % 3 for n in order]
    assert (len(found.test), found.test_split, found.validation, found.label_names) == (0, "", None, NAMES)


def test_a_run_on_training_images_alone_is_measured_on_those_held_out(tmp_path, pictures, untrained):
    path = write_csvs(tmp_path / "tables", pictures[0], ["train"]) / "train.csv"
    with pytest.raises(
        ValueError, match=r"train, local files has training images alone: pass --val_split 0\.1 .*--no_do_e"
    ):
        script.main(argv(path, tmp_path / "out"))
    choice = ["--val_split", "0.25", "--load_best_model_at_end", "true"]
    with pytest.raises(ValueError, match=r"load_best_model_at_end would choose .*: pass a dataset with test images"):
        script.main(argv(path, tmp_path / "out", *choice))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_run_of_each_source(tmp_path, pictures, source):
    folder = SOURCES[source](tmp_path, pictures[0])
    found = run(folder, tmp_path / "out", "--max_steps", "1", "--save_strategy", "no", "--method", "cutmix")
    assert (found["data"], found["n_train"], found["measured_on"]) == ("tables, local files", 12, {"test": 6})
    assert json.loads((tmp_path / "out" / "config.json").read_text())["label_names"] == list(NAMES)


def test_a_run_that_holds_out(tmp_path, pictures):
    path = write_csvs(tmp_path / "tables", pictures[0], ["train"], image="photo") / "train.csv"
    more = ["--image_column", "photo", "--val_split", "0.25", "--max_steps", "1", "--save_strategy", "no"]
    found = run(path, tmp_path / "out", *more)
    assert (found["n_train"], found["measured_on"], found["selected_on"]) == (9, {"held out of train": 3}, None)
    assert record(tmp_path / "out")["settings"]["val_split"] == 0.25


def write(folder, text, name="train.csv"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_what_a_csv_of_paths_may_not_be(tmp_path, pictures):
    (tmp_path / "png").symlink_to(pictures[0])
    good = "png/train/00.png,a\npng/train/01.png,b\npng/train/02.png,a\n"
    cases = [
        (
            "path,label\n" + good + "png/no.png,b\n",
            r"train\.csv, row 4: .*png/no\.png is no file: paths start in the folder",
        ),
        (
            "path,file,label\nx,y,a\n",
            r"train, local files needs one image column, but has file, path: name it with --image_column",
        ),
        ("photo,label\n" + good, r"needs one image column, but has nothing: .*\(the columns are label, photo\)"),
        ("path,kind\n" + good, r"needs one label column, but has nothing: name it with --label_column"),
        ("path,label\n" + good.replace(",b", ",a"), "holds one class alone, 'a'"),
        (
            "path,score\npng/train/00.png,1.5\npng/train/01.png,2\n",
            r"holds '1\.5', and images from a table need one class",
        ),
        ("path,label\n" + good + "png/train/03.png,\n", r"train\.csv holds labels outside 0\.\.1, the first in row 4"),
    ]
    for text, says in cases:
        with pytest.raises(ValueError, match=says) as error:
            load_images(str(write(tmp_path, text) / "train.csv"))
        assert "\n" not in str(error.value)


def test_splits_of_tables_that_do_not_go_together(tmp_path, pictures):
    folder = write_csvs(tmp_path / "tables", pictures[0])
    text = (folder / "test.csv").read_text()
    write(folder, text.replace("ant", "fox"), "test.csv")
    with pytest.raises(ValueError, match=r"test\.csv, row 1: label 'fox' is none of the 3 classes: ant, bee, cat"):
        load_images(str(folder))
    write(folder, text.replace("path", "photo"), "test.csv")
    with pytest.raises(
        ValueError, match=r"split test of tables, local files has no column 'path', but id, label, photo"
    ):
        load_images(str(folder))
    with pytest.raises(ValueError, match="image_column='x' is no column of tables, local files, whose columns are id"):
        load_images(str(folder), image_column="x")
    table(pictures[0], "train").to_parquet(str(folder / "train.parquet"))
    with pytest.raises(ValueError, match=r"tables holds tables as \.csv and as \.parquet: keep those of one kind"):
        load_images(str(folder))


def test_columns_are_of_tables_alone():
    with pytest.raises(ValueError, match=r"image_column and label_column .* dataset='synthetic' is none"):
        load_images("synthetic", label_column="label")


def test_a_damaged_image_in_a_table_is_named_by_its_number(tmp_path, pictures):
    data = table(pictures[0], "train").to_dict()
    data["img"][2]["bytes"] = b"no picture"
    datasets.Dataset.from_dict(data, features=table(pictures[0], "train").features).to_parquet(
        str(tmp_path / "a.parquet")
    )
    with pytest.raises(ValueError, match=r"^image 2 of Dataset.* cannot be read as an image"):
        load_images(str(tmp_path / "a.parquet"))


def test_a_missing_image_in_a_table_is_named_by_its_number(tmp_path, pictures):
    data = table(pictures[0], "train").to_dict()
    data["img"][2] = None
    whole = datasets.Dataset.from_dict(data, features=table(pictures[0], "train").features)
    whole.to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match=r"^image 2 of Dataset.* cannot be read as an image \(there is none\)"):
        load_images(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("library", ["torchvision", "timm", "list"])
def test_pairs_of_other_libraries_train_as_the_folder_does(tmp_path, pictures, library):
    """(image, label) pairs give the logits that the images of the folder give."""
    for n, image in enumerate(pictures[1]["train"]):
        (tmp_path / "pets" / name_of(n)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "pets" / name_of(n) / f"{n:02}.png")
    whole = load_images(str(tmp_path / "pets"))
    pairs = {
        "torchvision": lambda: ImageFolder(str(tmp_path / "pets")),
        "timm": lambda: timm.data.create_dataset("", str(tmp_path / "pets")),
        "list": lambda: list(zip(whole.train.images, whole.train.labels.tolist(), strict=True)),
    }[library]()
    logits = []
    for data in (whole.train, pairs):
        torch.manual_seed(0)
        model = create_model("timm/small_resnet8", 3, image_size=32)
        args = image_arguments(tmp_path / "out", max_steps=2, per_device_train_batch_size=4)
        look = {"image_size": 32, "mean": whole.mean, "std": whole.std}
        trainer = ImageMixTrainer(model, args, method="mixup", train_dataset=data, **look)
        trainer.train()
        logits.append(trainer.predict(whole.train).predictions)
    assert np.array_equal(*logits)


def test_paths_of_a_table_may_lie_anywhere(three, tmp_path):
    """Written out from the root of the disk, or from the folder of the table up and down again."""
    paths = sorted((three / "train").glob("*/*.png"))
    for named in (str, lambda path: os.path.relpath(path, tmp_path)):
        rows = [f"{named(path)},{path.parent.name}\n" for path in paths]
        (tmp_path / "train.csv").write_text("".join(["path,label\n", *rows]))
        data = load_images(str(tmp_path / "train.csv"))
        assert [np.asarray(image).tolist() for image in data.train.images] == [
            np.asarray(Image.open(path)).tolist() for path in paths
        ]
