"""What LogitMix keeps of its gain at higher layers: the runs of the sweep `levels`, each method less vanilla.

    python scripts/level_study.py runs/levels

Reads the logits that the runs left, and writes glue_runs/results/levels/differences.json, from which
`scripts/write_tables.py` writes the table of docs/results.md. The records of the runs are copied beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hf_logitmix.calibration.differences import differences

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "glue_runs" / "results" / "levels"
METRICS = ("accuracy", "ece", "nll", "ece_scaled", "nll_scaled")


def read(folder: Path) -> dict[str, dict[str, dict[int, Path]]]:
    """task -> level, with vanilla as one -> seed -> the folder of its run, for the runs that are done."""
    found: dict[str, dict[str, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(folder.glob("*/all_results.json")):
        run = json.loads(path.read_text())
        level = json.loads((path.parent / "sweep.json").read_text()).get("--level", ["embedding"])[0]
        found[run["task"]]["vanilla" if run["method_name"] == "vanilla" else level][run["seed"]] = path.parent
    return found


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="output_dir of the sweep")
    tasks = read(parser.parse_args().runs)
    record = {}
    for task, levels in tasks.items():
        seeds = sorted(set.intersection(*(set(runs) for runs in levels.values())))  # that every level has
        if not seeds:
            print(f"{task}: no seed is done at every level, left out")
            continue
        logits = {level: [_logits(runs[seed]) for seed in seeds] for level, runs in levels.items()}
        record[task] = {"seeds": seeds, "examples": len(logits["vanilla"][0][1]), "levels": {}}
        for level in tqdm(logits, desc=task):
            runs = [json.loads((levels[level][seed] / "all_results.json").read_text()) for seed in seeds]
            found = differences(logits[level], logits["vanilla"])
            record[task]["levels"][level] = {
                name: {
                    "mean": statistics.fmean(run[f"eval_{name}"] for run in runs),
                    "less vanilla": list(found[name]),
                }
                for name in METRICS
            }
            RESULTS.mkdir(parents=True, exist_ok=True)
            for seed in seeds:
                shutil.copy(levels[level][seed] / "all_results.json", RESULTS / f"{levels[level][seed].name}.json")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "differences.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {RESULTS / 'differences.json'}")
    return 0


def _logits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "eval_logits.npz") as saved:
        return saved["logits"], saved["labels"]


if __name__ == "__main__":
    sys.exit(main())
