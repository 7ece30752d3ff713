"""What docs/methods and docs/images.md say is so: code runs, defaults are the code's, commands parse, links resolve."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shlex
from pathlib import Path

import pytest
import timm
import torch
from transformers import HfArgumentParser

from glue_runs.run_glue import GlueArguments, GlueTrainingArguments
from glue_runs.sweep import commands, read_config
from glue_runs.tasks import TASKS
from helpers.data import examples
from helpers.models import tiny_bert, tiny_vit
from helpers.training import arguments
from hf_logitmix import METHODS, MixTrainingArguments, get_method
from hf_logitmix.metrics import calibration_metrics
from hf_logitmix.mixing import CutMix, PuzzleMix
from hf_logitmix.modalities.layers import sites
from hf_logitmix.noise import add_label_noise, noisy_labels
from hf_logitmix.temperature import cross_fit
from hf_logitmix.vision import cam
from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.data import HUB, SYNTHETIC
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.train import ImageArguments, ImageRunArguments

FOLDER = Path(__file__).parents[1] / "docs" / "methods"
TEXTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
IMAGES = FOLDER.parent / "images.md"
PAGES = sorted(set(TEXTS) - {"README"})
NAMES = sorted(set(METHODS) - {"logitmix_m"})  # another name of logitmix
TOOLS = {"label_noise", "temperature_scaling"}
IMAGE_ONLY = {name for name in NAMES if isinstance(METHODS[name].mixing, (CutMix, PuzzleMix))}
SECTIONS = [
    "What it does",
    "When to use it",
    "Hyperparameters",
    "Cost",
    "Example",
    "How it differs from the paper",
    "Source",
]


def blocks(page: str, language: str) -> list[str]:
    return blocks_of(TEXTS[page], language)


def blocks_of(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def section(page: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXTS[page], flags=re.DOTALL | re.MULTILINE).group(1)


def documented(page: str) -> dict[str, object]:
    """Name -> default, as the table of a page has them."""
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section(page, "Hyperparameters"), flags=re.MULTILINE)
    return {name: ast.literal_eval(default) for name, default in rows}


def options(name: str) -> list[str]:
    """The options of a method, as its error message lists them."""
    with pytest.raises(ValueError, match="is not an option") as error:
        get_method(name, no_such_option=1)
    return re.search(r"it has (.*)\.", str(error.value)).group(1).split(", ")


def default_of(name: str, option: str) -> object:
    parts = (METHODS[name].mixing, METHODS[name].objective, METHODS[name].targets)
    return next(getattr(part, option) for part in parts if hasattr(part, option))


def images(count: int) -> list[dict]:
    pixels = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return [{"pixel_values": image, "labels": number % 3} for number, image in enumerate(pixels)]


# ---- code -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    (code,) = blocks(page, "python")
    monkeypatch.chdir(tmp_path)
    model, data = (tiny_vit(), images(16)) if page in IMAGE_ONLY else (tiny_bert(), examples(16))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = {"model": model, "args": arguments(tmp_path), "train_dataset": data, "eval_dataset": data}
    exec(compile(code, f"docs/methods/{page}.md", "exec"), names)
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    if page in METHODS:
        assert type(names["trainer"].method.objective) is type(METHODS[page].objective)
        assert type(names["trainer"].method.targets) is type(METHODS[page].targets)


@pytest.mark.parametrize("number", [0, 1])
def test_blocks_of_the_page_on_training_run(number, tmp_path):
    text = (FOLDER.parent / "training.md").read_text()
    assert len(blocks_of(text, "python")) == 2
    names = {"model": tiny_bert(num_labels=2), "train_dataset": examples(16, num_labels=2), "args": arguments(tmp_path)}
    exec(compile(blocks_of(text, "python")[number], "docs/training.md", "exec"), names)
    before = names["model"].classifier.weight.clone()
    names["trainer"].train()
    assert not torch.equal(before, names["model"].classifier.weight)


COMMANDS = [
    (page, line) for page in sorted(TEXTS) for block in blocks(page, "bash") for line in block.strip().split("\n")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(COMMANDS)])
def test_commands_parse(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    python, script, *rest = shlex.split(line)
    assert python == "python"
    if script == "-m":
        check_image_command(rest)
        return
    assert script == "glue_runs/run_glue.py"
    glue, args = HfArgumentParser((GlueArguments, GlueTrainingArguments)).parse_args_into_dataclasses(rest)
    assert glue.task_name in TASKS
    assert glue.model_name_or_path
    assert args.output_dir
    get_method(args.method, **args.method_options())


def check_image_command(words: list[str]) -> None:
    """What comes after python -m: the training script with data, a model and a method that there are."""
    module, *rest = words
    assert module == "hf_logitmix.vision.train"
    images, args = HfArgumentParser((ImageArguments, ImageRunArguments)).parse_args_into_dataclasses(rest)
    if not images.demo:
        assert images.dataset in (SYNTHETIC, *HUB)
        assert timm.is_model(images.model.removeprefix("timm/"))
        assert args.output_dir
        get_method(args.method, **args.method_options())


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_their_command(page):
    lines = [line for name, line in COMMANDS if name == page and ("vision" in line or page not in IMAGE_ONLY)]
    assert any(page in TOOLS or f"--method {page} " in line for line in lines)


# ---- tables ---------------------------------------------------------------------------------------------------


def test_every_method_has_a_page_and_a_row():
    assert set(PAGES) == {*NAMES, *TOOLS}
    rows = re.findall(r"^\| \[`(\w+)`\]\((\w+)\.md\) \|", TEXTS["README"], flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    assert all(name == page for name, page in rows)


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_the_same_sections(page):
    assert re.findall(r"^## (.*)$", TEXTS[page], flags=re.MULTILINE) == SECTIONS
    assert len(re.findall(r"^# ", re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE), re.M)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_tables_hold_every_option_with_its_default(name):
    table = documented(name)
    assert sorted(table) == sorted(set(options(name)) - {"targets"})
    for option, default in table.items():
        assert default == default_of(name, option), option
        assert type(default) is type(default_of(name, option)), option


def test_tables_of_the_tools_hold_their_defaults():
    def signature(*functions):
        found = [parameter for function in functions for parameter in inspect.signature(function).parameters.values()]
        return {parameter.name: parameter.default for parameter in found if parameter.default is not parameter.empty}

    script = {field.name: field.default for field in dataclasses.fields(GlueArguments) if "noise" in field.name}
    assert documented("label_noise") == signature(noisy_labels, add_label_noise) | script
    assert documented("temperature_scaling") == signature(cross_fit, calibration_metrics)


def test_options_that_only_python_sets():
    listed = re.search(r"which only Python sets:(.*?)\.", " ".join(TEXTS["README"].split())).group(1)
    fields = {field.name for field in dataclasses.fields(GlueTrainingArguments)}
    every = {option for name in NAMES for option in options(name)} - {"targets"}
    assert re.findall(r"`(\w+)`", listed) == sorted(every - fields)


# ---- links and formulas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_links_between_files_resolve(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE))
    for target in targets:
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            assert (FOLDER / path).is_file() if path else anchor, target
    assert page == "README" or targets


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_formulas_stand_alone_and_lose_nothing_to_markdown(page):
    """GitHub takes a backslash before punctuation for an escape of Markdown's."""
    formulas = [line for line in TEXTS[page].split("\n") if "$$" in line]
    assert formulas or page == "README"
    for formula in formulas:
        assert re.fullmatch(r"\$\$[^$]+\$\$", formula)
        assert not re.search(r"\\[,;:!{}|_#%&]", formula), formula
        assert formula.count("{") == formula.count("}")
        assert formula.count(r"\left") == formula.count(r"\right")


# ---- docs/images.md -------------------------------------------------------------------------------------------


def rows_of_images(pattern: str) -> list[tuple[str, ...]]:
    return re.findall(pattern, IMAGES.read_text(), flags=re.MULTILINE)


def test_python_blocks_on_images_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, code in enumerate(blocks_of(IMAGES.read_text(), "python")):
        exec(compile(code, f"docs/images.md, block {number}", "exec"), names)
    assert names["trainer"].state.global_step == 2
    trained = names["trainer"].model.module.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in names["again"].state_dict().items())
    assert names["wrapped"].config.id2label == {0: "dark", 1: "light"}
    inner = names["wrapped"].timm_model.state_dict()
    assert all(torch.equal(inner[name], value) for name, value in names["also"].state_dict().items())


def test_commands_on_images_parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n".join(blocks_of(IMAGES.read_text(), "bash"))
    started = re.findall(r"-m (hf_logitmix\.vision\.\w+)(.*)$", text, flags=re.MULTILINE)
    for module, options in started:
        if module == "hf_logitmix.vision.cam":
            with pytest.raises(ValueError, match="out-vanilla holds no model"):  # it was parsed
                cam.main(shlex.split(options))
        else:
            check_image_command([module, *shlex.split(options)])
    assert {module for module, _ in started} == {"hf_logitmix.vision.train", "hf_logitmix.vision.cam"}


def test_the_sweep_on_the_page_of_images_is_one(tmp_path):
    (text,) = blocks_of(IMAGES.read_text(), "yaml")
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    for _, command in commands(read_config(path), []):
        check_image_command(command[2:])


def test_the_table_of_data_is_the_code():
    rows = rows_of_images(r"^\| `([\w-]+)` \| \[(\S+)\]\((\S+)\) \| (\d+) \| (\d) \| (\w+) \|$")
    assert rows == [
        (name, d.hub_id, f"https://huggingface.co/datasets/{d.hub_id}", str(d.image_size), str(d.channels), d.test)
        for name, d in HUB.items()
    ]


def test_the_table_of_small_models_is_the_code():
    rows = rows_of_images(r"^\| `(small_\w+)` \| .* \| ([\d.]+)M \| (\d) \|$")
    assert sorted(name for name, _, _ in rows) == sorted(timm.list_models("small_*"))
    for name, size, levels in rows:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=10)
        assert size == f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}", name
        assert int(levels) == len(list(model.feature_info)), name


def test_levels_that_the_page_of_images_names():
    found = sites(create_model("timm/small_resnet8", 3))
    assert len(found.layers) == 3
    assert [module.out_features for module in found.head] == [3]  # pooled is its input


def test_the_table_of_options_is_the_code():
    rows = {name: ast.literal_eval(default) for name, default in rows_of_images(r"^\| `(\w+)` \| `(.+?)` \| ")}
    own = {field.name: field.default for field in dataclasses.fields(ImageMixTrainingArguments)}
    general = {field.name for field in dataclasses.fields(MixTrainingArguments)}
    assert rows == {name: default for name, default in own.items() if name not in general}


def test_every_method_is_on_the_page_of_images():
    text = IMAGES.read_text()
    assert all(f"`{name}`" in text for name in NAMES)


def test_links_of_the_page_of_images_resolve():
    text = re.sub(r"^```.*?^```", "", IMAGES.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert target.startswith("https://") or (IMAGES.parent / target.partition("#")[0]).is_file(), target
