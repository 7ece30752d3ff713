"""Runs side by side, with commands that are a line of Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from hf_logitmix.commands import engines
from hf_logitmix.commands.engines import Job, Local, Ray

# Ends when a file of the other's name is there too: two that wait for one another must run at the same time.
MEET = """import pathlib, sys, time
here, own, other = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(here / own).touch()
until = time.time() + 60
while not (here / other).exists():
    time.sleep(0.02)
    assert time.time() < until
print(own, "met", other)"""


def job(folder, name, code, *words):
    return Job([sys.executable, "-c", code, *words], folder / "logs" / f"{name}.txt")


def meeting(folder):
    return [job(folder, one, MEET, str(folder), one, other) for one, other in (("a", "b"), ("b", "a"))]


def test_two_run_at_the_same_time_and_leave_their_logs(tmp_path):
    assert sorted(Local(2)(meeting(tmp_path))) == [(0, 0), (1, 0)]
    assert [(tmp_path / "logs" / f"{name}.txt").read_text() for name in "ab"] == ["a met b\n", "b met a\n"]


def test_a_failure_keeps_its_traceback_and_the_others_go_on(tmp_path):
    jobs = [job(tmp_path, "bad", "raise KeyError('gone')"), job(tmp_path, "good", "print(1)")]
    assert list(Local()(jobs)) == [(0, 1), (1, 0)]
    assert "KeyError: 'gone'" in (tmp_path / "logs" / "bad.txt").read_text()


def test_a_run_that_is_started_again_writes_behind_its_old_log(tmp_path):
    for _ in range(2):
        list(Local()([job(tmp_path, "a", "print('once')")]))
    assert (tmp_path / "logs" / "a.txt").read_text() == "once\nonce\n"


def test_each_has_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    shows = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    assert list(Local(3)([job(tmp_path, "three", shows)])) == [(0, 0)]
    assert list(Local(1)([job(tmp_path, "one", shows)])) == [(0, 0)]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert list(Local(3)([job(tmp_path, "set", shows)])) == [(0, 0)]
    written = [(tmp_path / "logs" / f"{name}.txt").read_text() for name in ("three", "one", "set")]
    assert written == ["2\n", "None\n", "5\n"]


def test_each_has_a_gpu_of_those_that_are_visible(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code = MEET + "\nimport os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    jobs = [job(tmp_path, one, code, str(tmp_path), one, other) for one, other in (("a", "b"), ("b", "a"))]
    assert sorted(Local(2)(jobs)) == [(0, 0), (1, 0)]
    assert {(tmp_path / "logs" / f"{name}.txt").read_text().split()[-1] for name in "ab"} == {"3", "5"}


def test_none_is_started_after_one_that_ctrl_c_stopped(tmp_path):
    jobs = [job(tmp_path, "a", "raise SystemExit(130)"), job(tmp_path, "b", "print(1)")]
    assert sorted(Local()(jobs)) == [(0, 130), (1, 130)]
    assert not (tmp_path / "logs" / "b.txt").exists()


SAVES = """import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("saved", flush=True), sys.exit(130)))
print("ready", flush=True)
time.sleep(60)"""
RUNS = """import pathlib, sys
from hf_logitmix.commands.engines import Job, Local
here = pathlib.Path(sys.argv[1])
print(sorted(Local()([Job([sys.executable, "-c", sys.argv[2]], here / name) for name in ("a", "b")])), flush=True)"""


def test_ctrl_c_while_the_last_run_ends_well_is_not_forgotten(tmp_path):
    """A run that saves at Ctrl-C and comes to its end all the same; what called the engine must start no other."""
    ended = []
    running = Local()([job(tmp_path, "a", "import os, signal; os.kill(os.getppid(), signal.SIGINT)")])
    with pytest.raises(KeyboardInterrupt):
        ended.extend(running)
    assert ended == [(0, 0)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "log"), [(signal.SIGTERM, "ready\nsaved\n"), (signal.SIGINT, "ready\ndone\n")])
def test_a_signal_to_the_engine_alone_leaves_no_run_behind(tmp_path, number, log):
    """SIGTERM is handed on, so that the run saves; Ctrl-C is not, as a terminal sends it to both, and is waited for."""
    code = (
        SAVES if number == signal.SIGTERM else "import time; print('ready', flush=True); time.sleep(3); print('done')"
    )
    process = subprocess.Popen([sys.executable, "-c", RUNS, tmp_path, code], stdout=subprocess.PIPE, text=True)
    until = time.time() + 60
    while not (tmp_path / "a").exists() or "ready" not in (tmp_path / "a").read_text():
        assert time.time() < until
        time.sleep(0.05)
    process.send_signal(number)
    written, _ = process.communicate(timeout=60)
    assert written == f"{[(0, 130 if number == signal.SIGTERM else 0), (1, 130)]}\n"
    assert (tmp_path / "a").read_text() == log
    assert not (tmp_path / "b").exists()


def test_an_error_in_what_takes_the_results_starts_nothing_more(tmp_path):
    jobs = [job(tmp_path, "a", "print(1)"), *(job(tmp_path, name, "import time; time.sleep(0.2)") for name in "bcdef")]

    def take():
        for _ in Local()(jobs):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        take()
    assert not (tmp_path / "logs" / "f.txt").exists()


def test_a_run_that_cannot_be_started_is_an_error_and_no_hang(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(Local()([Job(["no-such-command-at-all"], tmp_path / "a"), job(tmp_path, "b", "print(1)")]))


def test_more_runs_than_gpus_is_said(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert list(Local(2)([])) == []
    assert "jobs=2 on 1 GPUs: some runs share one." in caplog.text


def test_fewer_than_one_at_a_time_is_refused():
    for engine in (Local, Ray):
        with pytest.raises(ValueError, match=r"^jobs=0: pass at least 1\.$"):
            engine(0)


def test_ray_that_is_not_installed_is_told_at_once(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'^engine=ray needs Ray: pip install "hf_logitmix\[ray\]"\.$'):
        Ray(2)


@pytest.mark.slow
def test_ray_runs_two_at_a_time_on_a_cluster_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    jobs = [*meeting(tmp_path), job(tmp_path, "bad", "raise KeyError('gone')")]
    assert sorted(Ray(2)(jobs)) == [(0, 0), (1, 0), (2, 1)]
    assert (tmp_path / "logs" / "a.txt").read_text() == "a met b\n"
    assert "KeyError: 'gone'" in (tmp_path / "logs" / "bad.txt").read_text()
