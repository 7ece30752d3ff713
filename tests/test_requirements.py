"""Versions: what is refused at import, and that bounds, the lowest set and pyproject.toml say the same."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from hf_logitmix import _requirements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings along

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def bounds(lines):
    """Those of the requirements that have one."""
    return {r.name: r.specifier for r in map(Requirement, lines) if r.specifier}


def test_the_bounds_are_those_of_pyproject():
    of_commands = [line for line in EXTRAS["commands"] if "[" not in line] + EXTRAS["plots"]
    for lines, ours in (
        (PROJECT["dependencies"], _requirements.CORE),
        (EXTRAS["plots"], _requirements.PLOTS),
        (EXTRAS["evaluate"], _requirements.EVALUATE),
        (EXTRAS["vision"], _requirements.VISION),
        (of_commands, _requirements.COMMANDS),
    ):
        assert bounds(lines) == {name: SpecifierSet(bound) for name, bound in ours.items() if bound}
        assert ours.keys() <= {Requirement(line).name for line in lines}


def test_the_lowest_set_is_where_the_bounds_begin():
    lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
    of_extras = [line for name, extra in EXTRAS.items() if name not in ("integrations", "ray") for line in extra]
    lowest = {
        name: next(Version(specifier.version) for specifier in bound if specifier.operator == ">=")
        for name, bound in bounds(PROJECT["dependencies"] + of_extras).items()
    }
    found = {name: Version(version) for name, version in (line.split("==") for line in lines if line[0] != "#")}
    assert found.keys() - lowest.keys() == {"pandas", "pyarrow"}  # dependencies of those, not ours
    assert found.items() >= lowest.items()


@pytest.mark.parametrize(
    ("name", "version"), [("transformers", "4.57.6"), ("transformers", "5.5.3"), ("torch", "2.6.0+cu124")]
)
def test_an_import_beside_other_versions_is_refused(name, version, tmp_path):
    """In a process of its own, whose first metadata of the package says another version."""
    info = tmp_path / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import hf_logitmix"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    bound = bounds(PROJECT["dependencies"])[name]
    expected = f'ImportError: hf_logitmix needs {name}{bound} (found {version}): pip install "{name}{bound}"'
    assert found.stderr.splitlines()[-1] == expected


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_images_beside_other_versions_are_refused(name, monkeypatch):
    vision = pytest.importorskip("hf_logitmix.vision")
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda asked: "0.1" if asked == name else real(asked))
    with pytest.raises(ImportError, match=rf"^hf_logitmix.vision needs {name}>=[\d.]+ \(found 0.1\): pip install "):
        importlib.reload(vision)


def test_bounds_are_read_as_pip_reads_them(monkeypatch):
    """Builds, versions under way and missing packages; one sentence and one command for all that is wrong."""
    installed = {"a": "2.7.0+cpu", "b": "3.1.dev0", "c": "1.9", "d": "5.0"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    _requirements.require({"a": ">=2.7", "b": ">=3", "c": "!=1.8,>=1.7", "d": ">=4"}, "ours")
    with pytest.raises(ImportError) as error:
        _requirements.require({"a": ">=2.7.1", "c": "!=1.9,>=1.7", "d": ">=4", "e": ">=1"}, "ours")
    assert str(error.value) == (
        "ours needs a>=2.7.1 (found 2.7.0+cpu) and c!=1.9,>=1.7 (found 1.9) and e>=1 (found none): "
        'pip install "a>=2.7.1" "c!=1.9,>=1.7" "e>=1"'
    )
