"""Methods side by side: what the demos share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_logitmix.calibration.registry import columns
from hf_logitmix.training.checkpoints import last_complete_checkpoint
from hf_logitmix.training.runs import N_BINS

QUIET: Mapping[str, Any] = {"save_strategy": "no", "logging_strategy": "no", "log_level": "warning"}


def check_room(output: Path, methods: Sequence[str], data: str) -> None:
    """Let a demo take the place of an older one, and of nothing else.

    Raises:
        ValueError: for a folder of a method that holds a run on other data, or one with checkpoints.
    """
    for folder in (output / method for method in methods):
        record = folder / "all_results.json"
        is_other = record.exists() and json.loads(record.read_text()).get("data") != data
        if is_other or last_complete_checkpoint(str(folder)) is not None:
            raise ValueError(f"output_dir={str(output)!r} holds a run in {folder.name!r}: pass the demo another one.")


def compare(
    methods: Sequence[str],
    run: Callable[[str, Path], dict[str, Any] | None],
    output: Path,
    *,
    doing: str,
    title: str,
    told: str,
    is_shown: bool,
) -> int:
    """Run methods one after the other, then print their figures and draw their reliability diagrams side by side.

    Args:
        methods: names.
        run: makes the run of a method in a folder; what its records hold, or None if it was interrupted.
        output: where each method has a folder, and the picture is.
        doing: what each run does, for the line that announces it.
        title: of the picture.
        told: what the figures are of, in a line above them.
        is_shown: whether this process prints and draws them.

    Returns:
        the exit status.
    """
    started, results = time.perf_counter(), {}
    for method in methods:
        print(f"\n{method}: {doing}", flush=True)
        found = run(method, output / method)
        if found is None:
            print("\nStopped. The demo keeps no half-done runs: start it again.")
            return 130
        results[method] = found
    if is_shown:
        picture = output / "reliability.png"
        diagram_of({method: output / method for method in methods}, title, picture)
        print(f"\n{told}")
        print(side_by_side(results))
        print(f"The picture is {picture}; each method's run is in a folder beside it.")
        print(f"{time.perf_counter() - started:.0f} s in all.")
    return 0


def side_by_side(results: Mapping[str, dict[str, Any]]) -> str:
    """Runs as a table on one screen, a row each."""
    shown = {
        "accuracy": "eval_accuracy",
        **{title: f"eval_{name}" for title, name in columns("calibration").items()},
        "T": "eval_temperature",
        "seconds": "train_seconds",
    }
    width = max(10, *(len(name) + 1 for name in results))
    lines = [f"{'method':<{width}}" + "".join(f"{name:>12}" for name in shown)]
    for method, values in results.items():
        digits = {name: 1 if name == "seconds" else 3 for name in shown}
        cells = [f"{values[key]:>12.{digits[name]}f}" for name, key in shown.items()]
        lines.append(f"{method:<{width}}" + "".join(cells))
    lines.append("ECE, OE: 10 bins. Scaled: after temperature scaling, cross-fitted in two halves of these examples.")
    return "\n".join(lines)


def diagram_of(folders: Mapping[str, Path], title: str, path: Path) -> None:
    """Draw the reliability of runs beside one another, from the logits in their folders."""
    from hf_logitmix.calibration.plots import reliability_diagram  # of the extra plots

    panels = {}
    for name, folder in folders.items():
        with np.load(folder / "eval_logits.npz") as saved:
            panels[name] = (saved["logits"], saved["labels"])
    reliability_diagram(panels, N_BINS, title).savefig(path, dpi=150)
