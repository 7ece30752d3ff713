"""The versions that the tests pass with, in the words of pyproject.toml, and the refusal of others.

They stand here too because metadata is missing where the source runs without being installed; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from packaging.specifiers import SpecifierSet

CORE = {
    "torch": ">=2.7",
    "transformers": ">=5.9",
    "accelerate": ">=1.10",
    "datasets": ">=3.0",
    "numpy": ">=1.26",
    "scipy": ">=1.11.1",
    "scikit-learn": ">=1.3",
}
PLOTS = {"matplotlib": ">=3.8"}
COMMANDS = {**PLOTS, "pyyaml": ""}
EVALUATE = {"evaluate": ">=0.4.3"}
VISION = {"timm": ">=1.0.27", "torchvision": ">=0.22"}


def require(bounds: Mapping[str, str], package: str) -> None:
    """Do nothing if the installed version of everything is within its bound.

    Raises:
        ImportError: naming what `package` needs, what was found, and the command that installs it.
    """
    wrong = {}
    for name, bound in bounds.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "none"
        if found == "none" or not SpecifierSet(bound).contains(found, prereleases=True):
            wrong[name + bound] = found
    if wrong:
        needs = " and ".join(f"{needed} (found {found})" for needed, found in wrong.items())
        command = " ".join(["pip install", *(f'"{needed}"' for needed in wrong)])
        raise ImportError(f"{package} needs {needs}: {command}")
