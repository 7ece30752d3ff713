"""What a dataset tells of itself: its name, as the Hub has it if it is from there, its configuration and its split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_FILES = (None, "generator", "csv", "json", "text", "parquet", "arrow", "pandas", "imagefolder", "audiofolder")
_FROM_HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)@")


class DataFacts(NamedTuple):
    """What is known of a dataset; ``name`` is its size where it has none, the others are empty where they have none."""

    name: str
    config: str
    split: str

    def __str__(self) -> str:
        return f"{self.name} {self.config}".strip() + (f", {self.split}" if self.split else "")


def facts_of(dataset: Any, count: int | None) -> DataFacts:
    """What a dataset tells, of which nothing is guessed: files of one's own have no name.

    Args:
        dataset: anything; a `datasets.Dataset` tells more than its size.
        count: how many examples it has; None where that is not known.
    """
    info = getattr(dataset, "info", None)
    sources = getattr(info, "download_checksums", None)
    found = [_FROM_HUB.match(str(name)) for name in sources] if isinstance(sources, Mapping) else []
    on_hub = {match[1] for match in found if match}
    split = getattr(dataset, "split", None)
    split = str(split) if split is not None else ""
    name = getattr(info, "dataset_name", None) if getattr(info, "builder_name", None) not in _FILES else None
    name = on_hub.pop() if len(on_hub) == 1 else name
    if not name:
        return DataFacts("a dataset" if count is None else f"a dataset of {count:,} examples", "", "")
    config = getattr(info, "config_name", None)
    return DataFacts(str(name), "" if config in (None, "default") else str(config), split)
