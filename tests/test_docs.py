"""What the pages say is so: code runs, defaults are the code's, commands parse, links resolve, tables are not stale."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import timm
import torch
from transformers import HfArgumentParser

from helpers.pages import blocks_of, image_names, run_blocks, text_names
from hf_logitmix import METHODS, Method, MixTrainer, MixTrainingArguments, get_method, mixing, objectives, pairing
from hf_logitmix.commands.sweep import commands, read_config
from hf_logitmix.criteria import CrossEntropy, Focal
from hf_logitmix.glue.run import GlueArguments, GlueTrainingArguments
from hf_logitmix.glue.tasks import TASKS
from hf_logitmix.metrics import calibration_metrics
from hf_logitmix.modalities.layers import layers_of
from hf_logitmix.noise import add_label_noise, noisy_labels
from hf_logitmix.options import options_of
from hf_logitmix.temperature import cross_fit
from hf_logitmix.text.train import OwnTrainingArguments, TextArguments, check_arguments
from hf_logitmix.vision import cam
from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.data import HUB, SYNTHETIC
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.train import ImageArguments, ImageRunArguments

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDER = DOCS / "methods"
TEXTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
IMAGES = DOCS / "images.md"
EVERY_PAGE = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
PAGES = sorted(set(TEXTS) - {"README"})
NAMES = sorted(set(METHODS) - {"logitmix_m"})  # another name of logitmix
TOOLS = {"label_noise", "temperature_scaling"}
IMAGE_ONLY = {name for name in NAMES if "text" not in METHODS[name].mixing.reads}
REGRESSION = {"c_mixup"}
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


def section(page: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXTS[page], flags=re.DOTALL | re.MULTILINE).group(1)


def documented(page: str) -> dict[str, str]:
    """Name -> default, as the table of a page has them."""
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section(page, "Hyperparameters"), flags=re.MULTILINE)
    return dict(rows)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


# ---- code -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(TEXTS))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = image_names(tmp_path) if page in IMAGE_ONLY else text_names(tmp_path, 1 if page in REGRESSION else 3)
    before = {name: value.clone() for name, value in names["model"].state_dict().items()}
    run_blocks(FOLDER / f"{page}.md", names)
    assert any(not torch.equal(before[name], value) for name, value in names["model"].state_dict().items())
    if page in METHODS:
        assert type(names["trainer"].method.objective) is type(METHODS[page].objective)
        assert type(names["trainer"].method.targets) is type(METHODS[page].targets)


@pytest.mark.parametrize("page", ["plain_loop", "calibration", "figures"])
def test_python_blocks_of_other_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = text_names(tmp_path)
    before = [value.clone() for value in names["model"].parameters()]
    run_blocks(DOCS / f"{page}.md", names)
    moved = [not torch.equal(old, new) for old, new in zip(before, names["model"].parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    assert (tmp_path / "reliability.png").exists() == (page == "calibration")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_blocks_of_the_page_on_training_run(number, tmp_path):
    blocks = blocks_of((DOCS / "training.md").read_text(), "python")
    assert len(blocks) == 3
    names = text_names(tmp_path, num_labels=2)
    exec(compile(blocks[number], "docs/training.md", "exec"), names)
    before = names["model"].classifier.weight.clone()
    names["trainer"].train()
    assert not torch.equal(before, names["model"].classifier.weight)


COMMANDS = [
    (page, line) for page in sorted(TEXTS) for block in blocks(page, "bash") for line in block.strip().split("\n")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(COMMANDS)])
def test_commands_parse(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(line)
    assert program == "hf-logitmix"
    if words[0] == "images":
        check_image_command(words)
        return
    command, *rest = words
    assert command == "glue"
    glue, args = HfArgumentParser((GlueArguments, GlueTrainingArguments)).parse_args_into_dataclasses(rest)
    assert glue.task_name in TASKS
    assert glue.model_name_or_path
    assert args.output_dir
    get_method(args.method, **args.method_options())


def check_image_command(words: list[str]) -> None:
    """What comes after hf-logitmix: the command with data, a model and a method that there are."""
    command, *rest = words
    assert command == "images"
    images, args = HfArgumentParser((ImageArguments, ImageRunArguments)).parse_args_into_dataclasses(rest)
    if not images.demo:
        assert images.dataset in (SYNTHETIC, *HUB, "photos/train.csv")
        assert timm.is_model(images.model.removeprefix("timm/"))
        assert args.output_dir
        get_method(args.method, **args.method_options())


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_their_command(page):
    lines = [line for name, line in COMMANDS if name == page and ("images" in line.split() or page not in IMAGE_ONLY)]
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


def script_that_writes_tables():
    spec = importlib.util.spec_from_file_location("write_tables", ROOT / "scripts" / "write_tables.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_what_is_written_from_the_options_is_up_to_date(monkeypatch, capsys):
    script = script_that_writes_tables()
    monkeypatch.setattr(sys, "argv", ["write_tables.py", "--check"])
    assert script.main() == 0, capsys.readouterr().out
    monkeypatch.setattr(script, "METHODS", {**METHODS, "mixup": get_method("mixup", alpha=0.3)})
    assert script.main() == 1
    stale = {"README.md", "docs/methods/mixup.md"}
    assert set(capsys.readouterr().out.split("\n")) - {""} == {
        f"{name} is stale: run scripts/write_tables.py" for name in stale
    }


@pytest.mark.parametrize("name", NAMES)
def test_tables_hold_every_option(name):
    chosen = {"criterion"} if METHODS[name].criterion is not None else set()  # its options are there instead
    assert set(documented(name)) == set(METHODS[name].options) - {"targets"} - chosen


def test_defaults_of_the_tables_are_those_of_the_methods():
    """A few by hand, beside the script that writes them."""
    found = {(page, name): default for page in NAMES for name, default in documented(page).items()}
    assert found["mixup", "alpha"] == "0.4"
    assert found["manifold_mixup", "level"] == "'manifold'"
    assert found["logitmix_c", "weights"] == "(1.0, 1.0, 0.1)"
    assert found["lamix", "lam"] == "Constant(value=0.5)"
    assert found["lamix_p", "beta"] == "1.0"
    assert found["gmcel", "penalties"] == "(10.0, 1.0, 1.0, 10.0)"
    assert found["puzzlemix", "block_num"] == "None"


@pytest.mark.parametrize("page", NAMES)
def test_tables_have_four_columns(page):
    lines = [line for line in section(page, "Hyperparameters").split("\n") if line.startswith("|")]
    assert {line.count("|") for line in lines} == {5}


def test_tables_of_the_tools_hold_their_defaults():
    def signature(*functions):
        found = [parameter for function in functions for parameter in inspect.signature(function).parameters.values()]
        return {parameter.name: parameter.default for parameter in found if parameter.default is not parameter.empty}

    def literal(page):
        return {name: ast.literal_eval(default) for name, default in documented(page).items()}

    script = {field.name: field.default for field in dataclasses.fields(GlueArguments) if "noise" in field.name}
    assert literal("label_noise") == signature(noisy_labels, add_label_noise) | script
    assert literal("temperature_scaling") == signature(cross_fit, calibration_metrics)


def test_the_page_of_pairings_names_every_option_of_a_pairing():
    text = TEXTS["README"].split("## Options of a mixing method")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    own = [option.name for option in options_of(METHODS["mixup"].pairing, "pairing")]
    assert sorted(rows) == sorted(own)


def test_options_that_only_python_sets():
    listed = re.search(r"which only Python sets:(.*?)\.", " ".join(TEXTS["README"].split())).group(1)
    fields = {field.name for field in dataclasses.fields(GlueTrainingArguments)}
    every = {option for name in NAMES for option in METHODS[name].options} - {"targets"}
    assert re.findall(r"`(\w+)`", listed) == sorted(every - fields)


# ---- links and formulas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_links_between_files_resolve(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(TEXTS[page]))
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


@pytest.mark.slow
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
    started = re.findall(r"(?:^hf-logitmix|-m hf_logitmix) (images|cam)(.*)$", text, flags=re.MULTILINE)
    for command, options in started:
        if command == "cam":
            with pytest.raises(ValueError, match="out-vanilla holds no model"):  # it was parsed
                cam.main(shlex.split(options))
        else:
            check_image_command([command, *shlex.split(options)])
    assert sorted({command for command, _ in started}) == ["cam", "images"]


def test_commands_on_own_data_parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = blocks_of((DOCS / "own_data.md").read_text(), "bash")
    for line in text.strip().split("\n"):
        program, command, *options = shlex.split(line)
        assert (program, command) == ("hf-logitmix", "text")
        texts, args = HfArgumentParser((TextArguments, OwnTrainingArguments)).parse_args_into_dataclasses(options)
        check_arguments(texts, args)
        get_method(args.method or "vanilla", **args.method_options())


def test_the_sweep_on_the_page_of_images_is_one(tmp_path):
    (text,) = blocks_of(IMAGES.read_text(), "yaml")
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    for _, command in commands(read_config(path), []):
        check_image_command(command[3:])


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
    found = layers_of(create_model("timm/small_resnet8", 3))
    assert len(found.hidden) == 3
    assert [module.out_features for module in found.head] == [3]  # pooled is its input


def test_the_table_of_options_is_the_code():
    rows = {name: ast.literal_eval(default) for name, default in rows_of_images(r"^\| `(\w+)` \| `(.+?)` \| ")}
    own = {field.name: field.default for field in dataclasses.fields(ImageMixTrainingArguments)}
    general = {field.name for field in dataclasses.fields(MixTrainingArguments)}
    assert rows == {name: default for name, default in own.items() if name not in general}


def test_every_method_is_on_the_page_of_images():
    text = IMAGES.read_text()
    assert all(f"`{name}`" in text for name in NAMES)


# ---- all pages -------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of the titles of a page."""
    titles = re.findall(r"^#+ (.*)$", without_code(path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [*EVERY_PAGE, *sorted(FOLDER.glob("*.md"))], ids=lambda path: path.stem)
def test_links_and_anchors_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def is_there(name: str) -> bool:
    """Whether a dotted name is a module or a folder of this repository, or something in one."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module, _, last = name.rpartition(".")
    return is_there(module) and hasattr(importlib.import_module(module), last)


@pytest.mark.parametrize("path", [*EVERY_PAGE, *sorted(FOLDER.glob("*.md"))], ids=lambda path: path.stem)
def test_modules_that_pages_name_are_there(path):
    """`hf_logitmix.a.b` in code or text: a module, or a name in one; and folders and files of the package."""
    text = path.read_text()
    if path.name == "CHANGELOG.md":
        return  # which tells of names that are gone
    assert not re.search(r"\b(MixedCrossEntropy|input_lam|Moment|three axes)\b", text)
    for name in set(re.findall(r"\bhf_logitmix(?:\.[a-z_]+)+\b", text)):
        if not name.endswith(".json"):
            assert is_there(name), name
    for name in set(re.findall(r"`(hf_logitmix/[\w/.]+)`", text)):
        assert (ROOT / name).exists(), name


def test_the_page_on_the_architecture_has_one_picture_and_every_choice():
    text = (DOCS / "architecture.md").read_text()
    assert len(blocks_of(text, "mermaid")) == 1
    choices = re.findall(r"^\| (\w+) \| [A-Z].*\? \| `hf_logitmix/(\w+)/` \|", text, flags=re.MULTILINE)
    assert sorted(name for name, _ in choices) == sorted(field.name for field in dataclasses.fields(Method)[:5])
    assert all((ROOT / "hf_logitmix" / folder).is_dir() for _, folder in choices)


def test_the_combinations_on_the_page_of_the_architecture_are_methods():
    text = (DOCS / "architecture.md").read_text().split("## Eight papers")[1]
    rows = re.findall(r"^\| .* \| (none|`.*`) \| (.*) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 8
    parts = {"Method": Method}
    for folder in (mixing, objectives, pairing):
        parts |= vars(folder)
    combined = [eval(what.strip("`"), parts) for files, what in rows if files == "none"]
    assert [type(method) for method in combined] == [Method, Method]


# ---- CONTRIBUTING.md -------------------------------------------------------------------------------------------


@pytest.fixture
def focal(tmp_path, monkeypatch):
    """The part of CONTRIBUTING.md as the module that it would be, and its row among the methods."""
    part, row, test = blocks_of((ROOT / "CONTRIBUTING.md").read_text(), "python")
    path = tmp_path / "focal.py"
    path.write_text(part)
    spec = importlib.util.spec_from_file_location("hf_logitmix.criteria.focal", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    (method,) = eval(f"{{{row}}}", {"Method": Method, "Focal": module.Focal}).values()
    return module.Focal, dataclasses.replace(method, name="focal"), test


def run_its_tests(source: str) -> None:
    names: dict = {}
    exec(compile(source, "CONTRIBUTING.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_worked_example_passes_its_own_tests(focal):
    run_its_tests(focal[2])


def test_the_focal_loss_of_the_package_passes_them_too():
    *_, source = blocks_of((ROOT / "CONTRIBUTING.md").read_text(), "python")
    run_its_tests(source)


@pytest.mark.parametrize("gamma", [None, 0.0, 0.5, 2.0])
def test_the_worked_example_is_the_focal_loss_of_the_package(focal, gamma):
    options = {} if gamma is None else {"gamma": gamma}
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for target in (torch.tensor([0, 2, 1, 1, 0]), logits.roll(1, 0).softmax(-1)):
        torch.testing.assert_close(focal[0](**options)(logits, target), Focal(**options)(logits, target))


def test_the_worked_example_trains_by_itself_and_inside_other_methods(focal, tmp_path):
    cls, method, _ = focal
    for chosen in (method, get_method("mixup", criterion=cls(3.0)), get_method("logitmix", criterion=cls(), gamma=4.0)):
        names = text_names(tmp_path)
        before = names["model"].classifier.weight.clone()
        data = {"train_dataset": names["train_dataset"], "processing_class": names["tokenizer"]}
        MixTrainer(names["model"], names["args"], method=chosen, **data).train()
        assert not torch.equal(before, names["model"].classifier.weight)
    assert chosen.criterion.gamma == 4.0


def test_the_script_writes_the_tables_of_the_worked_example(monkeypatch):
    """A row among the methods and a page with an empty table are all that it asks for."""

    @dataclasses.dataclass(frozen=True)
    class Sharp(CrossEntropy):
        sharpness: float = dataclasses.field(default=2.0, metadata={"help": "Sharp: how sharp."})

    method, script = Method(criterion=Sharp(), name="sharp"), script_that_writes_tables()
    monkeypatch.setattr(script, "METHODS", {**METHODS, "sharp": method})
    with pytest.raises(FileNotFoundError, match=r"docs/methods/sharp\.md is missing"):
        script.methods()
    monkeypatch.setattr(script, "has_page", lambda name: name == "sharp" or (FOLDER / f"{name}.md").exists())
    assert script.command_line()["sharpness"] == ("float", "Sharp: how sharp.")
    assert "    sharpness: float | None = field(" in script.arguments()
    assert "| [`sharp`](docs/methods/sharp.md) |  |  | `Clean()`, `Sharp()` |" in script.methods()
    page = "## Hyperparameters\n\n| name | our default | in the paper | what it does |\n| --- | --- | --- | --- |\n"
    page += "| `sharpness` | `0` | section 4: 2 | |\n\n## Cost\n"
    found = script.hyperparameters(page, method)
    assert "| `sharpness` | `2.0` | section 4: 2 | Sharp: how sharp |\n" in found
    assert "| `criterion` |" not in found
    assert found.endswith(" |\n\n## Cost\n")
