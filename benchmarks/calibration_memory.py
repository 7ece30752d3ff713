"""Peak memory and seconds of `calibration_metrics` on large logits.

python benchmarks/calibration_memory.py [--before DIR]      writes calibration_memory.json beside this file

Logits are float32 and random, drawn with seed 0, and lie in a file that is mapped into memory (4 GB for the larger
case, in a temporary folder); labels are drawn at random. Each case runs in two processes of its own, one that is timed
and one in which tracemalloc follows what NumPy allocates. DIR is a checkout of an earlier version to compare with, for
the smaller case alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CASES = {"50,000 x 1,000": (50_000, 1_000), "1,000,000 x 1,000": (1_000_000, 1_000)}

CHILD = """
import json, sys, time, tracemalloc
import numpy as np
from hf_logitmix import __version__
from hf_logitmix.metrics import calibration_metrics

path, rows, columns, traced = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "traced"
logits = np.memmap(path, dtype=np.float32, mode="r", shape=(rows, columns))
labels = np.random.default_rng(1).integers(columns, size=rows)
if traced:
    tracemalloc.start()
started = time.perf_counter()
found = calibration_metrics(logits, labels)
seconds = time.perf_counter() - started
peak = tracemalloc.get_traced_memory()[1] if traced else 0
print(json.dumps({"seconds": seconds, "peak": peak, "values": found, "version": __version__}))
"""


def make(path: Path, rows: int, columns: int) -> None:
    """Write float32 logits, a part at a time."""
    drawn = np.memmap(path, dtype=np.float32, mode="w+", shape=(rows, columns))
    generator = np.random.default_rng(0)
    for start in range(0, rows, 10_000):
        part = drawn[start : start + 10_000]
        part[:] = 3 * generator.standard_normal(part.shape, dtype=np.float32)
    drawn.flush()


def measure(path: Path, rows: int, columns: int, checkout: Path) -> dict[str, Any]:
    """Seconds of one process and the peak of another, with the package of a checkout."""

    def child(how: str) -> dict[str, Any]:
        command = [sys.executable, "-c", CHILD, str(path), str(rows), str(columns), how]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    timed, traced = child("timed"), child("traced")
    return {
        "seconds": round(timed["seconds"], 1),
        "peak_megabytes": round(traced["peak"] / 1e6, 1),
        "ece": timed["values"]["ece"],
        "nll": timed["values"]["nll"],
        "metrics": len(timed["values"]),
        "hf_logitmix": timed["version"],
    }


def main() -> int:
    """Measure all cases and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    before = parser.parse_args().before
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (rows, columns) in CASES.items():
            path = Path(folder) / "logits"
            make(path, rows, columns)
            cases[name] = {"megabytes_of_logits": round(path.stat().st_size / 1e6, 1)}
            cases[name]["now"] = measure(path, rows, columns, ROOT)
            if before is not None and len(cases) == 1:
                commit = subprocess.check_output(["git", "-C", str(before), "rev-parse", "HEAD"], text=True).strip()
                cases[name]["before"] = {**measure(path, rows, columns, before.resolve()), "commit": commit}
            path.unlink()
            print(name, json.dumps(cases[name], indent=1), flush=True)
    record = {
        "what": "calibration_metrics on random float32 logits that are mapped into memory: seconds of one call, and in "
        "another process the peak of what NumPy allocated during it, without the file itself.",
        "cases": cases,
        "processor": f"{platform.machine()}, one of {os.cpu_count()} cores",
        "versions": {"numpy": np.__version__, "python": platform.python_version()},
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
