"""Copies of a model's files that are fit to be published: chosen by name, without a token or a path of the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

VOCABULARY = (
    *("tokenizer.json", "added_tokens.json", "special_tokens_map.json", "*vocab*.json", "*vocab*.txt", "merges.txt"),
    *("dict.txt", "bpe.codes", "*.model", "*.tiktoken", "*.tokenizer", "*.jinja", "additional_chat_templates/*.jinja"),
)
MODEL = (
    *("*config.json", "*.index.json", "hf_logitmix.json", "model*.safetensors", "adapter_model.safetensors"),
    *("modeling_*.py", "configuration_*.py", "tokenization_*.py", "*processing_*.py"),
    *("README.md", "*_results.json", "*.png", ".eval_results/*.yaml"),
    *VOCABULARY,
)
CHECKPOINT = (*MODEL, "*.safetensors", TRAINER_STATE_NAME)

_NEVER = (".", "_", f"{PREFIX_CHECKPOINT_DIR}-")  # names that Trainer does not push either
_WITH_SLASH = re.compile(r"[^\s`'\"()\[\]:,]*/[^\s`'\"()\[\],]*")
_NAMES_A_PATH = re.compile("(path|file|dir|folder|checkpoint)$")
_LINK = re.compile(r"\[([^\]]+)\]\(https://huggingface\.co/\1\)")


def publish(folder: Path, into: Path, patterns: Iterable[str], places: Iterable[str], token: str | None) -> list[str]:
    """Copy what is to be published into an empty folder.

    In configurations and cards a path of this machine becomes its last part; in the front matter of a card, where that
    would be taken for a name on the Hub, its line is left out, but for those of its results, which need all of theirs.

    Args:
        folder: with a model, or of a checkpoint.
        into: the empty folder.
        patterns: of the names to copy, as for `pathlib.Path.glob`.
        places: absolute paths that are local with all that is in them, even if it is gone.
        token: what no file may hold.

    Returns:
        the names in ``folder`` that are left out.

    Raises:
        ValueError: for a file that holds the token.
    """
    present = {path for path in folder.glob("*") if not path.name.startswith(_NEVER)}
    chosen = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    chosen = {path for path in chosen if not path.name.startswith(_NEVER)}
    vocabulary = {path for pattern in VOCABULARY for path in folder.glob(pattern)}
    places = [f"{place.rstrip('/')}/" for place in places if len(PurePath(place).parts) > 1]
    for path in chosen:
        copy = into / path.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
        if path.suffix in (".safetensors", ".png"):
            continue
        if path.suffix == ".json" and path not in vocabulary:
            found = _read(path)
            if (public := _without_paths(found, places)) != found:
                copy.write_text(json.dumps(public, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        elif path.suffix == ".md":
            copy.write_text(_card_without_paths(path.read_text(encoding="utf-8"), places), encoding="utf-8")
        if token and token.encode() in copy.read_bytes():
            raise ValueError(f"{path.name} holds the token that it is to be pushed with: take it out of there.")
    return sorted(path.name for path in present - chosen - {path.parent for path in chosen})


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is to be pushed and is no JSON ({error}): mend or rename it.") from error


def _is_local(text: str, places: list[str]) -> bool:
    """Whether a text is a path of this machine."""
    return "/" in text and (os.path.exists(text) or f"{text}/".startswith(tuple(places)))


def _without_paths(value: Any, places: list[str], key: str = "") -> Any:
    if key == "content" or key.endswith(("_token", "_tokens")):  # words of a tokenizer
        return value
    if isinstance(value, dict):
        return {name: _without_paths(item, places, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item, places, key) for item in value]
    if not isinstance(value, str):
        return value
    is_path = _is_local(value, places) or (value.startswith("/") and _NAMES_A_PATH.search(key))
    return PurePath(value).name or value if is_path else value


def _card_without_paths(text: str, places: list[str]) -> str:
    def tells(line: str) -> bool:
        return any(_is_local(part, places) for part in _WITH_SLASH.findall(line) if not part.startswith("//"))

    def last_part(found: re.Match[str]) -> str:
        is_path = re.match("/[^/]", found[0]) and _is_local(found[0], places)
        return PurePath(found[0]).name if is_path else found[0]

    def unlinked(found: re.Match[str]) -> str:
        return f"`{PurePath(found[1]).name}`" if _is_local(found[1], places) else found[0]

    head, end, body = text.partition("\n---\n") if text.startswith("---\n") else ("", "", text)
    lines, in_results = [], False
    for line in head.splitlines():
        in_results = line.startswith("model-index:") or (in_results and line.startswith((" ", "-")))
        if in_results or not tells(line):
            lines.append(_WITH_SLASH.sub(last_part, line) if in_results else line)
    return "\n".join(lines) + end + _WITH_SLASH.sub(last_part, _LINK.sub(unlinked, body))
