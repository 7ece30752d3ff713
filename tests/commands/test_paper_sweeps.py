"""The sweeps of papers and figures: each run is one that its command would take, with the numbers of its source."""

import re
from functools import cache
from pathlib import Path

import pytest
import timm

from hf_logitmix import METHODS, get_method
from hf_logitmix.commands import sweep
from hf_logitmix.commands.figure import FIGURES
from hf_logitmix.glue import run as glue
from hf_logitmix.vision import train as images
from hf_logitmix.vision.data import HUB

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in sorted(sweep.CONFIGS.glob("*_*.yaml")) if re.match("paper_|figure_", path.stem)}
PAPERS = [name for name in FILES if name.startswith("paper_")]


@cache
def runs_of(name: str) -> list[tuple]:
    """Of each run with the first seed the arguments of its data, those of its training, and its method."""
    config = sweep.read_config(name)
    runs = sweep.commands({**config, "seeds": config["seeds"][:1]}, [])
    sweep.check_arguments(runs)
    parser, found = {"datasets": images, "tasks": glue}["datasets" if "datasets" in config else "tasks"].parser(), []
    for _, command in runs:
        words, _ = images.translate(command[4:]) if command[3] == "images" else (command[4:], [])
        data, args = parser.parse(words)
        found.append((data, args, get_method(args.method, **args.method_options())))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_run_is_one_that_its_command_takes(name):
    seen = set()
    for data, args, method in runs_of(name):
        assert args.method in METHODS
        model = getattr(data, "model", None)
        if model is not None:
            assert timm.is_model(model.removeprefix("timm/"))
            assert data.dataset in HUB
        else:
            assert data.model_name_or_path in ("bert-base-uncased", "bert-large-uncased")
        task = getattr(data, "dataset", None) or data.task_name
        noise, smoothing = data.label_noise, args.label_smoothing_factor
        teacher = str(getattr(method.objective, "teacher", ""))
        told = (task, model, str(method), noise, smoothing, teacher)
        assert told not in seen  # no run twice
        seen.add(told)
        assert not (args.snapshots and args.eval_strategy == "no")


@pytest.mark.parametrize("name", PAPERS)
def test_a_file_says_what_is_from_where(name):
    lines = FILES[name].read_text().split("\n")
    head = lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]
    assert re.fullmatch(r"# (LogitMix, poster|MCEL|LaMix|When Does|Mixup training).*\.", head[0])
    assert head[1].startswith("# Needs ")
    assert any(line.startswith("# From the ") for line in head)
    assert any(line.startswith("# Ours: ") for line in head)
    assert f"(../hf_logitmix/configs/{name}.yaml)" in (ROOT / "docs" / "papers.md").read_text()


LAMIX = [name for name in PAPERS if name.startswith("paper_lamix")]
FIVE = {"mnist", "fashion_mnist", "svhn", "cifar10", "cifar100"}


@pytest.mark.parametrize("name", LAMIX)
def test_lamix_runs_five_seeds_and_its_epochs(name):
    """Sections 3.1 and 3.2: 128 a batch and 400 epochs, 600 with PuzzleMix; beta 1/2, with PuzzleMix 1."""
    found = runs_of(name)
    with_puzzles = any(args.method == "lamix_p" for _, args, _ in found)
    assert sweep.read_config(name)["seeds"] == [1, 2, 3, 4, 5]
    assert {args.num_train_epochs for _, args, _ in found} == ({600} if with_puzzles else {400})
    assert {args.per_device_train_batch_size for _, args, _ in found} == {128}
    for _, args, method in found:
        if args.method in ("mixup", "cutmix", "puzzlemix"):
            assert method.pairing.lam.alpha == 1  # uniform
        if args.method in ("lamix", "lamix_p"):
            assert (method.pairing.lam.value, method.pairing.label_lam.alpha) == (0.5, 1)
        if args.method == "lamix_p":
            assert method.objective.beta == 1
        if args.method == "lamix" and name not in ("paper_lamix_figure_4", "paper_lamix_table_8"):
            assert method.objective.beta == 0.5


@pytest.mark.parametrize(
    ("name", "datasets", "networks", "methods"),
    [
        ("lamix_table_1", FIVE, {"preact_resnet18", "resnet50"}, {"vanilla", "mixup", "cutmix", "lamix"}),
        ("lamix_table_2", {"cifar100"}, {"lenet", "wrn28_10", "densenet121"}, {"vanilla", "mixup", "cutmix", "lamix"}),
        ("lamix_table_3", FIVE, {"preact_resnet18", "resnet50"}, {"vanilla", "puzzlemix", "lamix_p"}),
        ("lamix_table_4", {"tiny-imagenet"}, {"preact_resnet18", "resnet50"}, {"puzzlemix", "lamix_p"}),
        (
            "lamix_table_5",
            {"tiny-imagenet", "cifar10", "cifar100"},
            {"preact_resnet18", "resnet50"},
            {"lamix", "mixup"},
        ),
        (
            "lamix_table_6",
            {"tiny-imagenet"},
            {"preact_resnet18", "resnet50"},
            {"vanilla", "mixup", "cutmix", "lamix"},
        ),
        ("lamix_table_7", {"cifar10", "cifar100"}, {"preact_resnet18", "resnet50"}, {"lamix"}),
        ("lamix_table_8", {"cifar10", "cifar100"}, {"preact_resnet18", "resnet50"}, {"lamix"}),
        (
            "logitmix_cifar100",
            {"cifar100"},
            {"vgg16", "resnet50", "resnext50_32x4d", "mobilenetv2", "shufflenetv2"},
            {"vanilla", "mixup", "logitmix_m", "cutmix", "logitmix_c", "puzzlemix", "logitmix_p"},
        ),
        (
            "logitmix_tiny_imagenet",
            {"tiny-imagenet"},
            {"resnet50", "mobilenetv2"},
            {"vanilla", "mixup", "logitmix_m", "cutmix", "logitmix_c", "puzzlemix", "logitmix_p"},
        ),
        (
            "logitmix_imagenet",
            {"imagenet-1k"},
            {"resnet50"},
            {"vanilla", "mixup", "logitmix_m", "cutmix", "logitmix_c", "puzzlemix", "logitmix_p"},
        ),
        ("mcel_table_1_cifar10", {"cifar10"}, {"wrn28_12", "resnet34"}, {"vanilla", "mcel"}),
        ("mcel_table_1_cifar100", {"cifar100"}, {"wrn28_12", "resnet152"}, {"vanilla", "mcel"}),
        ("mcel_table_2", {"imagenet-1k"}, {"resnet152"}, {"vanilla", "mcel", "sg_mcel"}),
        ("mcel_table_3", {"cifar10", "cifar100"}, {"resnet32"}, {"vanilla", "mcel", "sg_mcel"}),
        ("label_smoothing_cifar100", {"cifar100"}, {"resnet56"}, {"vanilla", "label_smoothing"}),
        ("label_smoothing_imagenet", {"imagenet-1k"}, {"inception_v4"}, {"vanilla", "label_smoothing"}),
        ("mixup_calibration", {"cifar10"}, {"resnet18"}, {"vanilla", "mixup"}),
    ],
)
def test_a_table_has_its_data_networks_and_methods_in_every_combination(name, datasets, networks, methods):
    found = runs_of(f"paper_{name}")
    kinds = {(d.dataset, d.model.removeprefix("timm/").removeprefix("small_"), args.method) for d, args, _ in found}
    assert kinds == {(d, n, m) for d in datasets for n in networks for m in methods}


def values(name: str, method: str, of) -> set:
    return {of(built) for _, args, built in runs_of(f"paper_{name}") if args.method == method}


def test_options_are_those_of_the_sources():
    """Each number is printed in the paper or slide, or is the released code's, as the pages of the methods quote it."""
    assert values("mixup_calibration", "mixup", lambda m: m.pairing.lam.alpha) == {0.1, 0.2, 0.3, 0.4, 0.7}
    assert values("label_smoothing_cifar100", "label_smoothing", lambda m: m.targets.eps) == {0.05}
    assert values("label_smoothing_imagenet", "label_smoothing", lambda m: m.targets.eps) == {0.1}
    for column in ("cifar10", "cifar100"):
        assert values(f"mcel_table_1_{column}", "mcel", lambda m: (m.targets.eps, m.targets.features)) == {
            (0.35, "pixels")
        }
    assert values("mcel_table_3", "mcel", lambda m: m.targets.eps) == {0.2}
    assert values("mcel_figure_3", "mcel", lambda m: m.targets.eps) == {0.1, 0.2, 0.3, 0.4}
    assert values("lamix_figure_4", "lamix", lambda m: m.objective.beta) == {round(0.1 * n, 1) for n in range(1, 10)}
    assert values("lamix_figure_6", "label_smoothing", lambda m: m.targets.eps) == {
        round(0.1 * n, 1) for n in range(1, 10)
    }
    assert values("lamix_table_7", "lamix", lambda m: m.objective.clean_batches) == {True, False}
    assert values("lamix_table_8", "lamix", lambda m: m.objective.beta) == {0.5, 1.0}
    factors = {args.label_smoothing_factor for _, args, _ in runs_of("paper_lamix_table_5") if args.method == "mixup"}
    assert factors == {0, 0.1, 0.2, 0.3, 0.4}
    terms = {(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)}
    assert values("logitmix_ablation", "logitmix", lambda m: m.objective.weights) == terms
    for data, prob in (("cifar100", 0.5), ("tiny_imagenet", 1), ("imagenet", 1)):
        assert values(f"logitmix_{data}", "logitmix_m", lambda m: (m.pairing.lam.alpha, *m.objective.weights)) == {
            (3, 1, 1, 1)
        }
        assert values(
            f"logitmix_{data}", "logitmix_c", lambda m: (m.pairing.lam.alpha, m.pairing.prob, *m.objective.weights)
        ) == {(1, prob, 1, 1, 0.1)}
        assert values(f"logitmix_{data}", "cutmix", lambda m: m.pairing.prob) == {prob}
    for size in ("base", "large"):
        found = runs_of(f"paper_logitmix_glue_{size}")
        tasks = {"mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte"}
        assert {(d.task_name, args.method) for d, args, _ in found} == {
            (task, method) for task in tasks for method in ("vanilla", "mixup", "logitmix")
        }
        assert values(f"logitmix_glue_{size}", "logitmix", lambda m: m.pairing.lam.alpha) == {3}
        assert values(f"logitmix_glue_{size}", "mixup", lambda m: m.mixing.level) == {"pooled"}


def test_mcel_trains_as_its_section_5_says():
    for name in ("table_1_cifar10", "table_1_cifar100", "table_3", "figure_3", "figure_5"):
        for data, args, _ in runs_of(f"paper_mcel_{name}"):
            assert (args.per_device_train_batch_size, args.num_train_epochs) == (250, 500)
            assert (args.momentum, args.weight_decay, data.val_split) == (0.1, 0.1, 0.2)  # 10,000 of 50,000
            assert args.load_best_model_at_end
    assert {d.label_noise_kind for d, _, _ in runs_of("paper_mcel_figure_5")} == {"pairwise"}


def test_calibration_slides_train_as_they_say():
    for _, args, _ in runs_of("paper_mixup_calibration"):
        assert (args.opt, args.momentum, args.learning_rate) == ("sgd", 0.9, 0.003)


def test_students_learn_from_the_teachers_that_the_sweep_before_leaves():
    made = {str(folder) for folder, _ in sweep.commands(sweep.read_config("paper_label_smoothing_teachers"), [])}
    taught = {args.teacher for _, args, _ in runs_of("paper_label_smoothing_students") if args.method == "distillation"}
    assert taught == made


def test_every_figure_over_an_option_has_its_sweep():
    named = {figure.sweep for figure in FIGURES.values() if figure.sweep}
    assert named == {name for name in FILES if name.startswith("figure_")} - {"figure_over_training"}
