"""Starts the scripts of `helpers.launched`, alone or under a launcher, and commands that get Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
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


def interrupt(command, progress, lines=1):
    """Start a command, send Ctrl-C as a terminal does after some lines of progress: (exit status, what it wrote)."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}, **pipes)
    guard = threading.Timer(300, os.killpg, (process.pid, signal.SIGKILL))
    guard.start()
    written = []
    for line in process.stdout:
        written.append(line)
        if progress in line and sum(progress in text for text in written) == lines:
            os.killpg(process.pid, signal.SIGINT)
    guard.cancel()
    return process.wait(), "".join(written)
