"""Keep of each run of a sweep what tables and reports are made of: its record, its logits and its log.

python scripts/keep_runs.py runs/text_study glue_runs/results/text_study
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from hf_logitmix.evidence.records import HISTORY, LOGITS, NAME


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="output_dir of the sweep")
    parser.add_argument("results", type=Path, help="folder to keep them in")
    options = parser.parse_args()
    done = sorted(options.runs.glob(f"*/{NAME}"))
    if not done:
        parser.error(f"{options.runs} holds no run that came to its end: pass the output_dir of a sweep.")
    for record in done:
        folder = options.results / record.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for name in (NAME, LOGITS, HISTORY):
            if (record.parent / name).exists():
                shutil.copy(record.parent / name, folder / name)
    print(f"{len(done)} runs are in {options.results}")


if __name__ == "__main__":
    main()
