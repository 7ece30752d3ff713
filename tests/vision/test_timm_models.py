"""Arguments that timm's models are made with, and what a saved one tells timm."""

from __future__ import annotations

import csv
import json
import logging

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import DropPath
from torch import nn
from torch.utils.data import Dataset, Subset

from helpers.image_runs import run, write_pictures
from helpers.images import Tiny, image_arguments, images, timm_model, trainer_of
from helpers.models import tiny_vit
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.run_arguments import keyword_arguments


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("data") / "six", 6, 4, 3, 32)


def rates_of(model: nn.Module) -> list[float]:
    return [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]


# ---- what a model is made with ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["drop_rate=0.1", "global_pool=avg", "depth=[1, 2]"],
            {"drop_rate": 0.1, "global_pool": "avg", "depth": [1, 2]},
        ),
        (["qkv_bias=False", "block=None", "name='1'"], {"qkv_bias": False, "block": None, "name": "1"}),
        (['{"drop_rate":', "0.1}"], {"drop_rate": 0.1}),
        ([], {}),
    ],
)
def test_pairs_and_json_are_read(words, expected):
    assert keyword_arguments(words) == expected


@pytest.mark.parametrize("words", [["drop_rate"], ["drop rate=0.1"], ["=1"], ['{"drop_rate" 0.1}']])
def test_what_is_no_pair_is_refused(words):
    with pytest.raises(ValueError, match="model_kwargs"):
        keyword_arguments(words)


def test_arguments_reach_timm_and_are_kept(tmp_path):
    options = {"drop_path_rate": 0.2, "drop_rate": 0.3}
    model = create_model("timm/test_vit", 3, image_size=32, model_kwargs=options)
    theirs = timm.create_model("test_vit", num_classes=3, img_size=32, **options)
    assert rates_of(model) == rates_of(theirs)
    assert max(rates_of(model)) == pytest.approx(0.2)
    assert model.timm_model.head_drop.p == theirs.head_drop.p == 0.3
    model.save_pretrained(tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert rates_of(again) == rates_of(theirs)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm/test_resnet", {"wings": 2}, r"wings=2: test_resnet cannot be made with that .*wings"),
        ("timm/small_lenet", {"drop_path_rate": 0.1}, r"drop_path_rate=0\.1: small_lenet"),
        ("timm/vgg11", {"drop_path_rate": 0.1}, r"drop_path_rate=0\.1: vgg11"),
        ("timm/test_resnet", {"num_classes": 5}, "num_classes is the number of classes of the dataset here"),
        ("timm/test_resnet", {"in_chans": 1}, "in_chans is channels here"),
        (
            "somewhere/vit",
            {"drop_rate": 0.1},
            r"drop_rate=0\.1: arguments of timm.create_model, and somewhere/vit is no",
        ),
    ],
)
def test_a_model_refuses_what_it_does_not_take(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        create_model(name, 3, image_size=32, model_kwargs=options)
    assert "\n" not in str(error.value)


def test_a_run_has_stochastic_depth_a_summary_and_its_checkpoints_by_name(six, tmp_path):
    options = [
        "--drop_path",
        "0.2",
        "--model_kwargs",
        "drop_rate=0.1",
        "--val_split",
        "0.25",
        "--num_train_epochs",
        "2",
    ]
    found = run(six, tmp_path, "--model", "timm/test_vit", *options, "--metric_for_best_model", "accuracy")
    assert found["settings"]["model_kwargs"] == {"drop_rate": 0.1, "drop_path_rate": 0.2}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"]["drop_path_rate"] == 0.2
    with open(tmp_path / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["eval_top1"]) for row in rows]
    assert len(accuracies) == 2
    assert all(0 <= float(row["eval_top5"]) <= 100 for row in rows)
    steps = [int(path.name.removeprefix("checkpoint-")) for path in tmp_path.glob("checkpoint-*")]
    assert found["checkpoints"]["last"] == f"checkpoint-{max(steps)}"
    best = accuracies.index(max(accuracies)) + 1  # the first of equals
    assert found["checkpoints"]["best"] == f"checkpoint-{best * max(steps) // 2}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drop_path", "0.1", "--model_kwargs", "drop_path_rate=0.2"], "are the same"),
        (["--drop_path", "1.5"], r"drop_path=1\.5 is outside"),
    ],
)
def test_a_run_refuses_a_rate_that_is_not_clear(six, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(six, tmp_path, "--model", "timm/test_vit", *options)


def test_a_plateau_is_waited_for_on_a_validation_split(six, tmp_path):
    options = ["--sched", "plateau", "--patience_epochs", "0", "--metric_for_best_model", "nll", "--warmup_epochs", "1"]
    with pytest.raises(
        ValueError, match="sched=plateau would choose the model on the examples that its figures are of"
    ):
        run(six, tmp_path, *options)
    found = run(six, tmp_path, *options, "--val_split", "0.25", "--learning_rate", "0.5", "--num_train_epochs", "3")
    assert found["selected_on"] == {"held out of train": 6}
    with open(tmp_path / "summary.csv", newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates[:2] == [1e-5, 0.5]  # timm's first epoch of a warm-up, and behind it


# ---- what a bare model tells timm ------------------------------------------------------------------------------------


class Named(Dataset):
    """Pictures whose dataset tells the classes, as those of torchvision do."""

    classes = ("cat", "dog", "owl")

    def __getitem__(self, index):
        data = images(12)
        return data.images[index], int(data.labels[index])

    def __len__(self) -> int:
        return 12


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"in_chans": 1}),
        ("test_vit", {"img_size": 32}),
        ("test_vit", {"img_size": 32, "in_chans": 1}),
        ("small_resnet8", {}),
    ],
)
@pytest.mark.parametrize("augmentation", [{"padding": 2}, {"crop_pct": 0.7, "interpolation": "lanczos"}])
def test_timm_loads_a_bare_model_with_the_images_of_the_run(tmp_path, name, options, augmentation):
    channels = options.get("in_chans", 3)
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    args = image_arguments(tmp_path, opt="sgd", max_steps=1, **augmentation)
    own = {"mean": mean, "std": std, "image_size": 32, "label_names": ["cat", "dog", "owl"]}
    trainer = trainer_of(timm_model(name, **options), args, data=images(8, channels=channels), **own)
    trainer.train()
    trainer.save_model()
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    pixels = torch.randn(4, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(pixels), trainer.model.module.cpu().eval()(pixels))
    found = resolve_model_data_config(again)
    assert list(found["input_size"]) == [channels, 32, 32]
    assert (tuple(found["mean"]), tuple(found["std"])) == (mean, std)
    assert found["crop_pct"] == augmentation.get("crop_pct", 1.0)
    assert found["interpolation"] == augmentation.get("interpolation", timm_model(name).pretrained_cfg["interpolation"])
    assert again.pretrained_cfg["label_names"] == ["cat", "dog", "owl"]
    assert (again.num_classes, again.pretrained_cfg["num_classes"]) == (3, 3)


def test_timm_reads_images_as_the_trainer_does(tmp_path):
    """Of a photograph that is no square, with the transform that timm makes of the saved configuration."""
    args = image_arguments(tmp_path, crop_pct=0.8)
    trainer = trainer_of(timm_model(), args, data=images(8), eval_dataset=images(8, 50))
    trainer.save_model()
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    transform = timm.data.create_transform(**resolve_model_data_config(again))
    for number in range(3):
        theirs = transform(images(8, 50).images[number])
        assert torch.equal(theirs, trainer.eval_dataset[number]["pixel_values"])


def test_names_come_from_the_dataset_that_tells_them(tmp_path):
    trainer = trainer_of(timm_model(), image_arguments(tmp_path), data=Subset(Named(), range(8)))
    trainer.save_model()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["label_names"] == ["cat", "dog", "owl"]
    with pytest.raises(ValueError, match="2 label_names for 3 classes"):
        trainer_of(timm_model(), image_arguments(tmp_path), label_names=["cat", "dog"])
    with pytest.raises(ValueError, match="has its own"):
        trainer_of(tiny_vit(), image_arguments(tmp_path), image_size=16, label_names=["cat", "dog", "owl"])


def test_a_module_of_nobodys_has_no_configuration(tmp_path):
    trainer = trainer_of(Tiny(), image_arguments(tmp_path))
    trainer.save_model()
    assert not (tmp_path / "config.json").exists()


@pytest.mark.skipif(timm.__version__ < "1.0.31", reason="earlier releases keep no arguments")
def test_a_class_that_json_does_not_have_is_named(tmp_path, caplog):
    trainer = trainer_of(timm_model("test_resnet", act_layer=nn.SiLU, drop_rate=0.1), image_arguments(tmp_path))
    with caplog.at_level(logging.WARNING):
        trainer.save_model()
    assert "as act_layer: pass it to timm.create_model again" in caplog.text
    assert json.loads((tmp_path / "config.json").read_text())["model_args"] == {"drop_rate": 0.1}
