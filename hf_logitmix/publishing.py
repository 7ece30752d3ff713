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
    *("README.md", "*_results.json", "*.png"),
    *VOCABULARY,
)
CHECKPOINT = (*MODEL, "*.safetensors", TRAINER_STATE_NAME)

_NEVER = (".", "_", f"{PREFIX_CHECKPOINT_DIR}-")  # names that Trainer does not push either
_MAY_BE_A_PATH = re.compile(r"[^\s`'\"()\[\]:,]*/[^\s`'\"()\[\],]*")
_LINK = re.compile(r"\[([^\]]+)\]\(https://huggingface\.co/\1\)")


def publish(folder: Path, into: Path, patterns: Iterable[str], places: Iterable[str], token: str | None) -> list[str]:
    """Copy what is to be published into an empty folder.

    In configurations and cards a path of this machine becomes its last part; in the front matter of a card, where that
    would be taken for a name on the Hub, its line is left out.

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
            found = json.loads(path.read_bytes())
            if (public := _without_paths(found, places)) != found:
                copy.write_text(json.dumps(public, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        elif path.suffix == ".md":
            copy.write_text(_card_without_paths(path.read_text(encoding="utf-8"), places), encoding="utf-8")
        if token and token.encode() in copy.read_bytes():
            raise ValueError(f"{path.name} holds the token that it is to be pushed with: take it out of there.")
    return sorted(path.name for path in present - chosen - {path.parent for path in chosen})


def _public(text: str, places: list[str]) -> str:
    """The last part of a path of this machine; any other text as it is."""
    is_local = "/" in text and (os.path.exists(text) or f"{text}/".startswith(tuple(places)))
    return PurePath(text).name or text if is_local else text


def _without_paths(value: Any, places: list[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: inner if key == "content" or key.endswith(("_token", "_tokens")) else _without_paths(inner, places)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_without_paths(inner, places) for inner in value]
    return _public(value, places) if isinstance(value, str) else value


def _card_without_paths(text: str, places: list[str]) -> str:
    def public(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith("//") else _public(found[0], places)

    def unlinked(found: re.Match[str]) -> str:
        name = _public(found[1], places)
        return found[0] if name == found[1] else f"`{name}`"

    head, end, body = text.partition("\n---\n") if text.startswith("---\n") else ("", "", text)
    lines = [line for line in head.splitlines() if _MAY_BE_A_PATH.sub(public, line) == line]
    return "\n".join(lines) + end + _MAY_BE_A_PATH.sub(public, _LINK.sub(unlinked, body))
