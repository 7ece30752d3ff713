"""What a checker of types says of code that uses the package: the README's is right, and mistakes are found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.pages import blocks_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
(DIFF,) = blocks_of(README, "diff")
DECLARED = """from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

model: PreTrainedModel
args: TrainingArguments
train_dataset: Any
tokenizer: PreTrainedTokenizerBase
"""
OF_THE_DIFF = "\n".join(line[2:] for line in DIFF.splitlines() if not line.startswith("-"))
SNIPPETS = [*blocks_of(README, "python"), DECLARED + OF_THE_DIFF]
MISTAKES = {
    "from hf_logitmix import MixTrainer\nMixTrainer(mdoel=None)": '"mdoel" for "MixTrainer"; did you mean "model"',
    "from hf_logitmix import MixTrainer\nMixTrainer(method=3)": 'Argument "method" to "MixTrainer" has incompatible',
    "from hf_logitmix import MixTrainer\nMixTrainer().trian()": '"MixTrainer" has no attribute "trian"',
    "from hf_logitmix import MixTrianer": 'Module "hf_logitmix" has no attribute "MixTrianer"',
    "from hf_logitmix import get_method\nget_method(3)": 'Argument 1 to "get_method" has incompatible type "int"',
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What mypy says of each snippet, without a configuration of ours: file name -> lines."""
    folder = tmp_path_factory.mktemp("snippets")
    for number, code in enumerate([*SNIPPETS, *MISTAKES]):
        (folder / f"snippet{number}.py").write_text(code + "\n")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--ignore-missing-imports", "--no-error-summary", "."]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    errors = re.findall(r"^(snippet\d+\.py):(.*error: .*)$", done.stdout, flags=re.MULTILINE)
    return {path.name: [told for name, told in errors if name == path.name] for path in folder.glob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_the_snippets_of_the_readme_are_typed_right(found, number):
    assert found[f"snippet{number}.py"] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_found(found, number):
    (told,) = found[f"snippet{len(SNIPPETS) + number}.py"]
    assert list(MISTAKES.values())[number] in told
