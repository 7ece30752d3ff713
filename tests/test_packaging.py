"""What is installed works away from a checkout, and the source distribution passes its own tests."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

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
        (["glue", "--help"], "--task_name"),
        (["sweep", "text_study", "--help"], "usage: hf-logitmix sweep"),
    ],
)
def test_the_command_runs_away_from_a_checkout(installed, tmp_path, words, says):
    assert says in run(installed / "bin" / "hf-logitmix", *words, cwd=tmp_path, path=installed)


def test_what_is_installed_is_what_runs(installed, tmp_path):
    code = """import importlib.util, hf_logitmix
from hf_logitmix.commands.sweep import read_config
print(hf_logitmix.__file__, len(read_config("text_study")["methods"]), importlib.util.find_spec("glue_runs"))"""
    shown = run(sys.executable, "-c", code, cwd=tmp_path, path=installed).split()
    assert shown == [str(installed / "hf_logitmix" / "__init__.py"), "5", "None"]


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
