"""What docs/methods says is so: its code runs, its defaults are the code's, its commands parse, its links resolve."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shlex
from pathlib import Path

import pytest
import torch
from conftest import examples, tiny_bert, tiny_vit
from test_trainer import arguments
from transformers import HfArgumentParser

from glue_runs.run_glue import GlueArguments, GlueTrainingArguments
from glue_runs.tasks import TASKS
from hf_logitmix import METHODS, get_method
from hf_logitmix.metrics import calibration_metrics
from hf_logitmix.mixing import CutMix, PuzzleMix
from hf_logitmix.noise import add_label_noise, noisy_labels
from hf_logitmix.temperature import cross_fit

FOLDER = Path(__file__).parents[1] / "docs" / "methods"
TEXTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
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
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[page], flags=re.DOTALL | re.MULTILINE)


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


COMMANDS = [
    (page, line) for page in sorted(TEXTS) for block in blocks(page, "bash") for line in block.strip().split("\n")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(COMMANDS)])
def test_commands_parse(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    python, script, *rest = shlex.split(line)
    assert (python, script) == ("python", "glue_runs/run_glue.py")
    glue, args = HfArgumentParser((GlueArguments, GlueTrainingArguments)).parse_args_into_dataclasses(rest)
    assert glue.task_name in TASKS
    assert glue.model_name_or_path
    assert args.output_dir
    get_method(args.method, **args.method_options())


@pytest.mark.parametrize("page", sorted(set(PAGES) - IMAGE_ONLY))
def test_pages_on_text_have_their_command(page):
    lines = [line for name, line in COMMANDS if name == page]
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
