"""What is installed works away from a checkout, and the source distribution passes its own tests."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from helpers.glue import small_run
from helpers.image_runs import write_pictures
from helpers.pages import blocks_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "glue_runs" / "results" / "first_results"
SOME_TESTS = ("tests/commands/test_table.py", "tests/glue/test_glue_tasks.py", "tests/test_readme.py")
pytestmark = pytest.mark.slow


def run(*command, cwd, path=""):
    environment = {**os.environ, "PYTHONPATH": str(path), "HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the source distribution, made in a copy of these files."""
    folder = tmp_path_factory.mktemp("built")
    left_out = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    run(sys.executable, "-c", "import setuptools.build_meta as b; b.build_sdist('..')", cwd=folder / "source")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "..",
        ".",
    ]
    run(*pip, cwd=folder / "source")
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder where the wheel alone is installed."""
    target = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel, cwd=built)
    return target


def test_the_wheel_holds_one_package_and_what_its_commands_read(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].removesuffix(".dist-info").partition("-")[0] for name in names} == {"hf_logitmix"}
    ours = ROOT / "hf_logitmix"
    wanted = {path.relative_to(ROOT).as_posix() for end in ("py", "yaml", "typed") for path in ours.rglob(f"*.{end}")}
    assert {name for name in names if "dist-info" not in name} == wanted


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--help"], "usage: hf-logitmix COMMAND"),
        (["methods"], "mixup            RandomPairs(lam=Beta(0.4))"),
        (["methods", "mixup"], "https://arxiv.org/abs/1710.09412"),
        (["table", RESULTS], "| cola | vanilla | matthews correlation |"),
        (["demo", "--help"], "where it leaves its runs (demo_output)"),
        (["glue", "--help"], "--task_name"),
        (["sweep", "text_study", "--help"], "usage: hf-logitmix sweep"),
        (["text", "--help"], "--calibration_split"),
        (["images", "--help"], "--dataset"),
        (["cam", "--help"], "usage: hf-logitmix cam"),
        (["compare", "--help"], "usage: hf-logitmix compare"),
        (["report", "--help"], "usage: hf-logitmix report"),
    ],
)
def test_the_command_runs_away_from_a_checkout(installed, tmp_path, words, says):
    assert says in run(installed / "bin" / "hf-logitmix", *words, cwd=tmp_path, path=installed)


SHORT = ["--max_steps", "3", "--per_device_train_batch_size", "4", "--use_cpu", "True", "--disable_tqdm", "True"]


def commands_of(page):
    """The command lines of a page, as lists of words."""
    lines = "".join(blocks_of((ROOT / "docs" / page).read_text(), "bash")).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("hf-logitmix ")]


def test_the_commands_on_data_of_ones_own_run_with_nothing_but_the_wheel(installed, tmp_path):
    """All that the page has, but for the one that needs the Hub, with a tiny model; then table, on what they left."""
    begun = small_run(tmp_path)
    model = begun[begun.index("--model_name_or_path") + 1]
    words, texts = ("no", "yes"), [f"{'not ' * (n % 2)}a good film {n}" for n in range(40)]
    for name in ("train", "dev", "new"):
        rows = [f"{text},{words[n % 2]}\n" for n, text in enumerate(texts)]
        (tmp_path / f"{name}.csv").write_text("".join(["text,label\n", *rows]))
    lines = [json.dumps({"review": text, "stars": n % 2}) for n, text in enumerate(texts)]
    (tmp_path / "reviews.jsonl").write_text("\n".join(lines))
    votes = [f"{text},{0.25 + n % 2 / 2},{0.75 - n % 2 / 2}\n" for n, text in enumerate(texts)]
    (tmp_path / "votes.csv").write_text("".join(["text,p_no,p_yes\n", *votes]))
    ran = []
    for command in commands_of("own_data.md"):
        given = dict(zip(command[1::2], command[2::2], strict=False))
        if "--dataset_name" in given:
            continue
        trains = "--train_file" in given
        output = f"run-{len(ran)}" if trains else "predicted"
        options = {"bert-base-uncased": model, "out": output if trains else ran[0]}
        command = [options.get(word, word) if n else word for n, word in enumerate(command)]
        if not trains:
            command[command.index("--output_dir") + 1] = output
        run(installed / "bin" / "hf-logitmix", *command, *SHORT, cwd=tmp_path, path=installed)
        ran.append(output)
    assert len(ran) == 4
    head, *rows = (tmp_path / "predicted" / "predictions.csv").read_text().splitlines()
    assert (head, len(rows)) == ("row,prediction,confidence,p_no,p_yes", 40)
    for method in ("logitmix", "mixup"):
        assert f"| {method} |" in run(installed / "bin" / "hf-logitmix", "table", ".", cwd=tmp_path, path=installed)


def test_the_commands_on_images_run_with_nothing_but_the_wheel(installed, tmp_path):
    """That of the page for a table of paths, and the picture of where its model looks."""
    write_pictures(tmp_path / "pictures", 2, 20, 4, 32)
    paths = sorted((tmp_path / "pictures" / "train").glob("*/*.png"))
    rows = [f"{path},{path.parent.name}\n" for path in paths]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "train.csv").write_text("".join(["photo,species\n", *rows]))
    (command,) = [words for words in commands_of("images.md") if "photos/train.csv" in words]
    run(installed / "bin" / "hf-logitmix", *command, *SHORT, cwd=tmp_path, path=installed)
    cam = ["cam", "out", "--dataset", "pictures", "--output", "cam.png"]
    run(installed / "bin" / "hf-logitmix", *cam, cwd=tmp_path, path=installed)
    assert (tmp_path / "cam.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_installed_is_what_runs(installed, tmp_path):
    code = """import importlib.util, hf_logitmix
from hf_logitmix.commands.sweep import read_config
print(hf_logitmix.__file__, len(read_config("text_study")["methods"]), importlib.util.find_spec("glue_runs"))"""
    shown = run(sys.executable, "-c", code, cwd=tmp_path, path=installed).split()
    assert shown == [str(installed / "hf_logitmix" / "__init__.py"), "13", "None"]


def test_the_source_distribution_holds_every_file_and_passes_tests_of_its_own(built, tmp_path):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as held:
        held.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    if (ROOT / ".git").exists():
        tracked = run("git", "ls-files", cwd=ROOT).splitlines()
        assert [name for name in tracked if (ROOT / name).exists() and not (unpacked / name).exists()] == []
    shown = run(sys.executable, "-m", "pytest", "-q", *SOME_TESTS, cwd=unpacked, path=unpacked)
    assert "passed" in shown or "100%" in shown
