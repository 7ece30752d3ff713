"""Imports: of the package, in any order and without extras; and no test imports another one."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_logitmix

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings along

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def test_no_test_module_imports_another():
    paths = {path: ast.parse(path.read_text()) for path in TESTS.rglob("*.py")}
    tests = {path.stem for path in paths if not path.is_relative_to(TESTS / "helpers")}
    imported = {
        (path.name, name)
        for path, tree in paths.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert len(tests) > 50
    assert [(path, name) for path, name in imported if tests & set(name.split("."))] == []


IMPORT_EACH = """import importlib, pathlib, sys, warnings
import torch, transformers, datasets, timm, torchvision, matplotlib, evaluate, sklearn.discriminant_analysis
warnings.simplefilter("ignore")  # the small models are registered again and again
root = pathlib.Path(sys.argv[1])
for path in sorted((root / "hf_logitmix").rglob("*.py")):
    for name in [name for name in sys.modules if name.partition(".")[0] == "hf_logitmix"]:
        del sys.modules[name]
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""


@pytest.mark.slow
def test_every_module_can_be_the_first_to_be_imported():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH, str(ROOT)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def test_names_of_the_package_are_where_their_types_are_read_from():
    """What a checker of types imports is what `__getattr__` does, name by name."""
    block, _ = [node for node in ast.parse(Path(hf_logitmix.__file__).read_text()).body if isinstance(node, ast.If)]
    told = {alias.name: node.module for node in block.body for alias in node.names}
    assert told == {name: f"hf_logitmix.{place}" for name, place in hf_logitmix._PLACES.items()}
    assert set(told) | {"__version__"} == set(hf_logitmix.__all__) <= set(dir(hf_logitmix))
    for name, module in told.items():
        assert getattr(hf_logitmix, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="has no attribute 'MixTainer'"):
        hf_logitmix.MixTainer  # noqa: B018


TRAINER_ALONE = """import sys
from hf_logitmix import METHODS, MixCollator, MixTrainer, MixTrainingArguments, mixed_forward
import hf_logitmix.metrics, hf_logitmix.temperature
print(*sorted({name.partition(".")[0] for name in sys.modules}))"""


@pytest.mark.slow
def test_a_trainer_imports_what_is_required_and_no_extra():
    done = subprocess.run(
        [sys.executable, "-c", TRAINER_ALONE], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    required = "torch transformers accelerate datasets numpy scipy sklearn safetensors huggingface_hub packaging tqdm"
    imported = set(done.stdout.split())
    assert set(required.split()) <= imported
    assert not {"matplotlib", "evaluate", "timm"} & imported
    dependencies = {re.match(r"[\w-]+", line).group() for line in PROJECT["dependencies"]}
    assert dependencies == {name.replace("sklearn", "scikit-learn") for name in required.split()}
