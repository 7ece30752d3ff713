"""Command lines of timm's train.py, against what they mean in timm, written out by hand."""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import HfArgumentParser

import hf_logitmix.vision.train as script
from hf_logitmix import get_method
from hf_logitmix.mixing import Switch
from hf_logitmix.pairing import Beta
from hf_logitmix.vision.timm_names import AS_IT_IS, FLAGS, KNOWN, NAMES, NONE, SHORT, translate
from hf_logitmix.vision.train import ImageArguments, ImageRunArguments

OURS = {field.name for kind in (ImageArguments, ImageRunArguments) for field in fields(kind)}


def parsed(*words: str):
    """What a command line asks for in the end, and the lines of the log."""
    ours, notes = translate([*words, "--use_cpu", "--output_dir", "out"])
    images, args = HfArgumentParser((ImageArguments, ImageRunArguments)).parse_args_into_dataclasses(ours)
    return images, args, notes


SAME = [  # words of timm's train.py; what they mean
    (["/data"], {"dataset": "/data"}),
    (["--data-dir", "/data"], {"dataset": "/data"}),
    (["--data_dir=/data"], {"dataset": "/data"}),
    (["-b", "64"], {"per_device_train_batch_size": 64}),
    (["--batch-size=64", "-vb", "32"], {"per_device_train_batch_size": 64, "per_device_eval_batch_size": 32}),
    (["--lr", "5e-4"], {"learning_rate": 5e-4}),
    (["--epochs", "300", "--grad-accum-steps", "2"], {"num_train_epochs": 300, "gradient_accumulation_steps": 2}),
    (["--model-ema"], {"ema_decay": 0.9998}),
    (["--model-ema", "--model-ema-decay", "0.99"], {"ema_decay": 0.99}),
    (["--model-ema", "--model-ema-warmup"], {"ema_decay": 0.9998, "ema_warmup": True}),
    (["--drop-path", "0.1"], {"drop_path": 0.1}),
    (["--drop", "0.2", "--gp", "avg"], {"model_kwargs": ["drop_rate=0.2", "global_pool=avg"]}),
    (["--model-kwargs", "a=1", "b=2", "--drop", "0.2"], {"model_kwargs": ["a=1", "b=2", "drop_rate=0.2"]}),
    (["--clip-grad", "1.0", "--clip-mode", "norm"], {"max_grad_norm": 1.0}),
    (["--smoothing", "0.1"], {"label_smoothing_factor": 0.1}),
    (["--sched", "step", "--decay-epochs", "2.4", "--dr", "0.97"], {"sched": "step", "decay_rate": 0.97}),
    (["--warmup-epochs", "5", "--warmup-lr", "1e-6"], {"warmup_epochs": 5, "warmup_lr": 1e-6}),
    (["--sched", "poly", "--sched-on-updates", "--min-lr", "1e-5"], {"sched": "poly", "min_lr": 1e-5}),
    (["--weight-decay", "0.05"], {"weight_decay": 0.05}),
    (["--aa", "rand-m9-mstd0.5-inc1", "--reprob", "0.25"], {"aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25}),
    (["--amp", "--amp-dtype", "bfloat16"], {"bf16": True, "fp16": False}),
    (["-j", "8"], {"dataloader_num_workers": 8}),
    (["--opt", "adamw", "--opt-eps", "1e-6"], {"opt": "adamw", "adam_epsilon": 1e-6}),
    (["--opt", "adamw", "--opt-betas", "0.9", "0.95"], {"adam_beta1": 0.9, "adam_beta2": 0.95}),
    (["--img-size", "96", "--in-chans", "1"], {"image_size": 96, "channels": 1}),
    (["--input-size", "3", "96", "96"], {"image_size": 96, "channels": 3}),
    (["--bce-loss", "--bce-target-thresh", "0.2"], {"criterion": "bce", "target_threshold": 0.2}),
    (["--bce-loss", "--bce-sum"], {"criterion": "bce", "sum_classes": True}),
    (["--mixup", "0.8"], {"method": "mixup", "alpha": 0.8, "second_lam": None}),
    (["--cutmix", "1.0"], {"method": "cutmix", "alpha": 1.0}),
    (["--mixup=0", "--cutmix", "0.5"], {"method": "cutmix", "alpha": 0.5}),
    (["--cutmix", "0.5", "--mixup", "0.2"], {"method": "mixup_cutmix", "alpha": 0.2, "second_lam": "beta:0.5"}),
    (["--mixup", "0"], {"method": None, "alpha": None}),
    (["--mixup", "0.1", "--method", "mixup"], {"method": "mixup", "alpha": 0.1}),
    (["--mixup", "0.1", "--mixup-prob", "0.5", "--mixup-mode", "elem"], {"prob": 0.5, "per_example": True}),
    (["--mixup", "0.1", "--mixup-off-epoch", "75", "--epochs", "100"], {"off_after": 0.75, "num_train_epochs": 100}),
    (["--mixup-switch-prob", "0.3", "--mixup-mode", "batch"], {"switch_prob": 0.3, "per_example": None}),
    (["--channels-last", "--grad-checkpointing"], {"channels_last": True}),
    (["--eval-metric", "top1", "--log-interval", "7"], {"metric_for_best_model": "accuracy", "logging_steps": 7}),
    (["--torchcompile", "inductor"], {"torch_compile": True, "torch_compile_backend": "inductor"}),
    (["--no-aug", "--seed", "42", "--pretrained"], {"no_aug": True, "seed": 42, "pretrained": True}),
    (["--cutmix", "1.0", "--val_split", "0.1"], {"val_split": 0.1}),
]


@pytest.mark.parametrize(("words", "expected"), SAME)
def test_a_line_of_timm_asks_for_what_it_asks_for_there(words, expected, monkeypatch):
    monkeypatch.setattr("transformers.TrainingArguments.torch_compile", False)
    images, args, notes = parsed(*words)
    found = {name: getattr(images if hasattr(images, name) else args, name) for name in expected}
    assert found == expected
    assert notes == []


def test_both_alphas_reach_the_method():
    _, args, _ = parsed("--mixup", "0.8", "--cutmix", "0.5")
    method = get_method(args.method, **args.method_options())
    assert isinstance(method.mixing, Switch)
    assert (method.pairing.lam, method.mixing.second_lam) == (Beta(0.8), Beta(0.5))


DIFFERS = [
    (["--output", "runs"], "--output is --output_dir here, which is the run's own folder"),
    (["--resume", "last"], "folder checkpoint-N"),
    (["--checkpoint-hist", "5"], "save_total_limit"),
    (["--model-ema-decay", "0.99"], "without --model-ema"),
    (["--epochs", "10", "--cooldown-epochs", "2"], "come on top of them in timm"),
]


@pytest.mark.parametrize(("words", "note"), DIFFERS)
def test_what_differs_is_one_line(words, note):
    (found,) = translate(words)[1]
    assert note in found
    assert "\n" not in found


REFUSED = [
    (["--num-classes", "10"], "--num-classes of timm has no counterpart here: the dataset tells its classes"),
    (["--num_classes=10"], "num_classes"),
    (["--mixup", "0.8", "--method", "logitmix"], "is --method mixup here, and --method logitmix is passed"),
    (["--mixup", "0.8", "--alpha", "1.0"], "--alpha here, which is passed too"),
    (["--lr", "0.1", "--learning_rate", "0.2"], "--lr is --learning_rate here, which is passed too"),
    (["/data", "--dataset", "cifar10"], "--dataset here, which is passed too"),
    (["--bce-loss", "--criterion", "focal"], "--criterion here"),
    (["--mixup", "much"], "--mixup much: pass a number"),
    (["--mixup-mode", "pair"], "pass batch, or elem"),
    (["--mixup-off-epoch", "5"], "pass --epochs too, or --off_after"),
    (["--clip-mode", "agc"], "clipped by their norm alone"),
    (["--remode", "pixel"], "mean colour"),
    (["--amp", "--amp-dtype", "float8"], "float16 or bfloat16"),
    (["--amp-dtype", "bfloat16"], "pass --amp too"),
    (["--opt-betas", "0.9"], "two numbers"),
    (["--input-size", "3", "96", "64"], "two equal sides"),
    (["--eval-metric", "f1"], "top1, top5, loss"),
    (["--jsd-loss"], "--jsd-loss of timm has no counterpart here: leave it out"),
    (["--val-split", "validation"], "a share of the training images"),
    (["-c", "run.yaml"], "has no counterpart"),
    (["--lr"], "--lr needs a value"),
    (["--model-ema", "yes"], "--model-ema takes no value"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_there_is_none_of_is_one_sentence(words, message):
    with pytest.raises(ValueError, match=message) as error:
        translate(words)
    assert "\n" not in str(error.value)


def test_our_own_words_pass_untouched():
    words = ["--dataset", "cifar10", "--weights", "1", "-1", "0.5", "--learning_rate", "0.1", "--run_name=-x", "--demo"]
    assert translate(words) == (words, [])
    assert translate(["--seed=3", "-j=2"])[0] == ["--seed", "3", "--dataloader_num_workers", "2"]
    assert translate(["run.json"]) == (["run.json"], [])
    assert translate([]) == ([], [])


def test_the_table_leads_to_options_that_there_are_and_hides_none_of_them():
    assert {name.ours for name in NAMES.values()} <= OURS
    dashed = {name.replace("_", "-") for name in OURS}
    assert not (set(KNOWN) - {"config"}) & dashed
    assert set(FLAGS) <= KNOWN
    assert set(SHORT.values()) <= KNOWN | {"dataset"}
    assert not set(NAMES) & (set(NONE) | set(AS_IT_IS))


def test_the_command_takes_them_and_says_what_differs(tmp_path, caplog, monkeypatch):
    seen = {}
    monkeypatch.setattr(script, "load_images", lambda name, *columns: seen.setdefault("dataset", name))
    monkeypatch.setattr(script, "run", lambda images, args, data: seen.update(images=images, args=args))
    words = ["--data-dir", "here", "--model", "timm/small_resnet8", "--mixup", "0.8", "--cutmix", "1.0"]
    with caplog.at_level(logging.WARNING):
        script.main([*words, "-b", "16", "--lr", "0.3", "--output", str(tmp_path), "--use_cpu"])
    args = seen["args"]
    assert (seen["dataset"], args.method, args.learning_rate) == ("here", "mixup_cutmix", 0.3)
    assert (args.per_device_train_batch_size, args.output_dir) == (16, str(tmp_path))
    assert [record.message for record in caplog.records if "here" in record.message] == [
        translate(["--output", "x"])[1][0]
    ]


def test_the_page_has_every_name():
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    table = page.split("## If you come from timm")[1].split("\n## ")[0]
    for name in [f"--{name}" for name in KNOWN - set(NONE) - set(AS_IT_IS)] + list(SHORT):
        assert re.search(rf"`{name}\b(?!-)|[` ]{name}\b(?!-)", table), name
    for ours in {name.ours for name in NAMES.values()}:
        assert f"--{ours}" in table, ours
