"""Starts the scripts of `helpers.launched`, alone or under a launcher of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
PATHS = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", str(TESTS.parent))])
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": PATHS}


def run_launched(launcher: list[str], script: str, *options: str) -> None:
    """Run a module of `helpers.launched` to its end, which must be a good one."""
    command = [*launcher, "-m", f"helpers.launched.{script}", *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
