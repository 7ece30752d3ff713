"""Sweeps with runs that are made up: what is run and what is not, and how a sweep ends."""

import json
import signal
import sys
from pathlib import Path

import pytest
import yaml

from helpers.launching import interrupt
from hf_logitmix.commands import sweep

SWEEP = {"output_dir": "runs", "tasks": ["cola", "rte"], "methods": ["vanilla", "mixup"], "seeds": [1, 2]}


def config(folder, **changes):
    """The file of a sweep with some entries changed or dropped; JSON is YAML too."""
    values = {**SWEEP, "output_dir": str(folder / "runs"), **changes}
    (folder / "sweep.yaml").write_text(json.dumps({key: values[key] for key in values if values[key] != "dropped"}))
    return folder / "sweep.yaml"


KEYS = "the keys methods, output_dir, seeds, one of tasks, datasets, texts, and arguments"
NO_KEYS = [({key: "dropped"}, KEYS) for key in SWEEP]
NO_LISTS = [({k: v}, f"{k} must be a list") for k in ("tasks", "methods", "seeds") for v in ([], "cola", None, 3)]


@pytest.mark.parametrize(("changes", "says"), [*NO_KEYS, ({"sedes": [1]}, KEYS), ({"texts": ["a"]}, KEYS), *NO_LISTS])
def test_a_sweep_needs_its_keys_and_lists(tmp_path, changes, says):
    with pytest.raises(ValueError, match=rf"sweep\.yaml: .*{says}"):
        sweep.read_config(config(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ["vanilla", 3]}, "3 of methods is not text"),
        ({"seeds": [1, "two"]}, "'two' of seeds is not a whole number"),
        ({"arguments": ["num_train_epochs"]}, "arguments must be names with values"),
    ],
)
def test_entries_of_another_kind_are_named(tmp_path, changes, says):
    with pytest.raises(ValueError, match=rf"sweep\.yaml: {says}"):
        sweep.read_config(config(tmp_path, **changes))


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "sweep.yaml").write_text("tasks: [cola\nseeds: 1]")
    with pytest.raises(ValueError, match=r"sweep\.yaml is no YAML: .*line 2"):
        sweep.read_config(tmp_path / "sweep.yaml")


def parsed(command):
    """Options of a command line, each with its values as one text."""
    parts = (part.split() for part in " ".join(command[4:]).split("--")[1:])
    return {name: " ".join(values) for name, *values in parts}


@pytest.mark.parametrize("arguments", ["dropped", None, {"lr": "5e-5", "weights": [1, 1, 0.5], "fp16": True}])
def test_commands_are_every_combination_once(tmp_path, arguments):
    runs = sweep.commands(sweep.read_config(config(tmp_path, arguments=arguments)), ["--level", "pooled"])
    names = [(t, m, str(s)) for t in SWEEP["tasks"] for m in SWEEP["methods"] for s in SWEEP["seeds"]]
    shared = {"lr": "5e-5", "weights": "1 1 0.5", "fp16": "True"} if isinstance(arguments, dict) else {}
    for folder, command in runs:
        options = parsed(command)
        names.remove(chosen := tuple(options.pop(key) for key in ("task_name", "method", "seed")))
        assert folder == tmp_path / "runs" / "-".join(chosen)
        assert command[:4] == [sys.executable, "-m", "hf_logitmix", "glue"]
        assert options == {"output_dir": str(folder), "level": "pooled", **shared}
    assert names == []


@pytest.mark.parametrize("path", sorted(sweep.CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_packaged_sweep_has_a_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep.read_config(path.stem) == yaml.safe_load(path.read_text())


def test_a_file_comes_before_a_packaged_sweep_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config(tmp_path).rename("text_study")
    assert sweep.read_config("text_study")["tasks"] == SWEEP["tasks"]


def test_a_sweep_that_is_not_there_is_an_error_that_lists_the_packaged_ones():
    with pytest.raises(FileNotFoundError, match=r"^text_studdy is no file and none of .*short_runs.*text_study"):
        sweep.read_config("text_studdy")


def test_a_method_may_have_options_of_its_own(tmp_path):
    changes = {"tasks": ["cola"], "methods": ["logitmix", "logitmix --level hidden:2"], "seeds": [1]}
    known = sweep.read_config(config(tmp_path, **changes, arguments={"level": "embedding"}))
    runs = sweep.commands(known, ["--level", "pooled"])  # for every run that has none of its own
    assert [folder.name for folder, _ in runs] == ["cola-logitmix-1", "cola-logitmix-level-hidden-2-1"]
    assert [sweep.arguments_of(command)["--level"] for _, command in runs] == [["pooled"], ["hidden:2"]]


def test_a_sweep_over_datasets_trains_images(tmp_path):
    changes = {"tasks": "dropped", "datasets": ["mnist", "a/folder"], "methods": ["cutmix"], "seeds": [3]}
    runs = sweep.commands(sweep.read_config(config(tmp_path, **changes)), [])
    assert [folder.name for folder, _ in runs] == ["mnist-cutmix-3", "folder-cutmix-3"]
    assert runs[1][1][:6] == [sys.executable, "-m", "hf_logitmix", "images", "--dataset", "a/folder"]
    with pytest.raises(ValueError, match="datasets must be a list"):
        sweep.read_config(config(tmp_path, **{**changes, "datasets": []}))
    with pytest.raises(ValueError, match="one of tasks, datasets, texts"):
        sweep.read_config(config(tmp_path, **{**changes, "tasks": ["cola"]}))


def test_a_sweep_over_texts_trains_on_files_and_on_named_datasets(tmp_path):
    (tmp_path / "own.csv").touch()
    texts = [str(tmp_path / "own.csv"), "org/reviews"]
    changes = {"tasks": "dropped", "texts": texts, "methods": ["mixup"], "seeds": [3]}
    runs = sweep.commands(sweep.read_config(config(tmp_path, **changes)), [])
    assert [folder.name for folder, _ in runs] == ["own.csv-mixup-3", "reviews-mixup-3"]
    assert [command[3:6] for _, command in runs] == [
        ["text", "--train_file", texts[0]],
        ["text", "--dataset_name", texts[1]],
    ]


def test_an_option_before_the_sweep_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["--num_train_epochs", "1", "text_study"])
    assert "config comes before the options: hf-logitmix sweep CONFIG --num_train_epochs ..." in capsys.readouterr().err


def test_a_part_of_a_sweep_is_chosen(tmp_path, monkeypatch):
    called = pretend(monkeypatch)
    assert sweep.main([str(config(tmp_path)), "--tasks", "rte", "--methods", "mixup", "--seeds", "2", "1"]) == 0
    assert [name for name, _ in called] == ["rte-mixup-1", "rte-mixup-2"]
    with pytest.raises(ValueError, match=r"^--seeds 7: the sweep has 1, 2\.$"):
        sweep.main([str(config(tmp_path)), "--seeds", "7"])
    with pytest.raises(ValueError, match=r"^--datasets mnist: the sweep has no datasets\.$"):
        sweep.main([str(config(tmp_path)), "--datasets", "mnist"])


def test_a_method_that_there_is_not_is_found_before_the_first_run(tmp_path, monkeypatch):
    called = pretend(monkeypatch)
    with pytest.raises(ValueError, match=r"^method logitmx is unknown \(did you mean logitmix\?\)"):
        sweep.main([str(config(tmp_path, methods=["vanilla", "logitmx --alpha 1"]))])
    assert called == []


def test_runs_that_would_share_a_folder_are_refused(tmp_path):
    changes = {"tasks": "dropped", "datasets": ["a/mnist", "b/mnist"], "methods": ["cutmix"], "seeds": [3]}
    with pytest.raises(ValueError, match=r"two runs would share the folder .*mnist-cutmix-3"):
        sweep.commands(sweep.read_config(config(tmp_path, **changes)), [])


def pretend(monkeypatch, **statuses):
    """Runs that end with a status and, where it is 0, leave a record: (folder, options) of those that are called."""
    called = []

    def run(jobs):
        for number, (command, log) in enumerate(jobs):
            folder = Path(parsed(command)["output_dir"])
            called.append((folder.name, parsed(command)))
            status = statuses.get(folder.name.replace("-", "_"), 0)
            log.parent.mkdir(exist_ok=True)
            log.write_text("Traceback: it went wrong\n" if status else "fine\n")
            if not status:
                (folder / "all_results.json").write_text("{}")
            yield number, status

    monkeypatch.setitem(sweep.ENGINES, "local", lambda jobs: run)
    return called


def test_a_sweep_goes_on_after_a_failure_and_later_runs_only_what_is_missing(tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, rte_vanilla_1=1, cola_mixup_2=3)
    assert sweep.main([str(config(tmp_path)), "--level", "pooled"]) == 1
    written = capsys.readouterr()
    failed = written.out.splitlines()[-1].split("Failed: ")[1]
    assert written.err.count("Traceback: it went wrong") + written.out.count("Traceback: it went wrong") == 2
    assert failed.split(", ") == ["cola-mixup-2", "rte-vanilla-1"]
    (tmp_path / "runs/rte-vanilla-1/checkpoint-4").mkdir()  # cut off while it was saved
    (tmp_path / "runs/cola-mixup-2/checkpoint-9").mkdir()
    (tmp_path / "runs/cola-mixup-2/checkpoint-9/trainer_state.json").write_text("{}")
    called = pretend(monkeypatch)
    assert sweep.main([str(config(tmp_path)), "--level", "pooled"]) == 0
    resumed = [(name, options.get("resume_from_checkpoint")) for name, options in called]
    assert resumed == [("cola-mixup-2", "last"), ("rte-vanilla-1", None)]


@pytest.mark.parametrize(
    ("changes", "extra", "says"),
    [
        ({"arguments": {"learning_rate": "5e-2"}}, [], "--learning_rate was 5e-5 and is 5e-2"),
        ({}, ["--learning_rate", "1e-3"], "--learning_rate was 5e-5 and is 1e-3"),
        ({"arguments": {"learning_rate": "5e-5", "fp16": True}}, [], "--fp16 was left out and is True"),
        ({"arguments": "dropped"}, [], "--learning_rate was 5e-5 and is left out"),
    ],
)
def test_a_sweep_that_has_changed_does_not_take_old_runs_for_its_own(tmp_path, monkeypatch, changes, extra, says):
    """Nothing is run before all folders have been looked at; the sweep as it was is done."""
    pretend(monkeypatch)
    before = {"arguments": {"learning_rate": "5e-5"}}
    assert sweep.main([str(config(tmp_path, **before))]) == 0
    called = pretend(monkeypatch)
    with pytest.raises(ValueError, match=rf"cola-vanilla-1 holds a run with other arguments \({says}\)"):
        sweep.main([str(config(tmp_path, **{**before, **changes})), *extra])
    assert sweep.main([str(config(tmp_path, **before))]) == 0
    assert called == []


def test_a_sweep_refuses_a_run_that_it_knows_nothing_of(tmp_path, monkeypatch):
    pretend(monkeypatch)
    (tmp_path / "runs/cola-vanilla-1").mkdir(parents=True)
    (tmp_path / "runs/cola-vanilla-1/all_results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cola-vanilla-1 holds a run and no sweep\.json"):
        sweep.main([str(config(tmp_path))])


@pytest.mark.parametrize("besides", ["", "--disable_tqdm True --resume_from_checkpoint last"])
def test_runs_that_were_kept_are_not_run_again_on_another_machine(tmp_path, monkeypatch, besides):
    """Of a kept run there is the record alone, whose command has the last parts of paths."""
    called = pretend(monkeypatch)
    for name in ("here", "there"):
        (tmp_path / name / "glue").mkdir(parents=True)
    choice = ["--tasks", "cola", "--methods", "mixup", "--seeds", "1"]
    start = [str(config(tmp_path, arguments={"learning_rate": "5e-5"})), *choice, "--glue_dir"]
    command = "hf-logitmix glue --task_name cola --seed 1 --output_dir cola-mixup-1 --learning_rate 5e-5 --method mixup"
    folder = tmp_path / "runs" / "cola-mixup-1"
    folder.mkdir(parents=True)
    (folder / "all_results.json").write_text(json.dumps({"command": f"{command} --glue_dir glue {besides}"}))
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "there" / "glue"), "there/glue"):
        assert sweep.main([*start, path]) == 0
    assert called == []
    with pytest.raises(ValueError, match=r"arguments \(--lr_scheduler_type was left out and is cosine\)"):
        sweep.main([*start, str(tmp_path / "here" / "glue"), "--lr_scheduler_type", "cosine"])


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        (["--alpha 0.2"], "'--alpha 0.2' does not begin with a name"),
        ([""], "'' does not begin with a name"),
        (["mixup --alpha '0.2"], ".*mixup --alpha '0.2.* has a quote without its other half"),
        (
            ["distillation --teacher /a/t", "distillation --teacher /b/t"],
            "records keep the last part of a path, so distillation --teacher /a/t and .* /b/t would",
        ),
    ],
)
def test_methods_that_cannot_be_told_apart_or_have_no_name_are_refused(tmp_path, methods, says):
    with pytest.raises(ValueError, match=f"^methods: {says}"):
        sweep.main([str(config(tmp_path, methods=methods))])


def test_ctrl_c_in_the_last_run_of_an_engine_stops_the_sweep(tmp_path, monkeypatch):
    def run(jobs):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setitem(sweep.ENGINES, "local", lambda jobs: run)
    assert sweep.main([str(config(tmp_path))]) == 130


@pytest.mark.parametrize("status", [130, -signal.SIGINT])
def test_ctrl_c_in_a_run_stops_the_sweep(tmp_path, monkeypatch, status):
    called = pretend(monkeypatch, cola_mixup_1=status)
    assert sweep.main([str(config(tmp_path))]) == 130
    assert [name for name, _ in called] == ["cola-vanilla-1", "cola-mixup-1"]


def test_a_run_that_ends_well_and_leaves_no_record_has_failed(tmp_path, monkeypatch):
    monkeypatch.setitem(sweep.ENGINES, "local", lambda jobs: lambda jobs: ((n, 0) for n, _ in enumerate(jobs)))
    assert sweep.main([str(config(tmp_path))]) == 1


RUN = """import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (time.sleep(1), print("saved", flush=True), sys.exit(130)))
print("ready", flush=True)
time.sleep(60)"""
SWEEP_OF_TWO = """import pathlib, signal, sys, threading, time
from hf_logitmix.commands import sweep
signal.signal(signal.SIGINT, signal.default_int_handler)
here, run = pathlib.Path(sys.argv[1]).parent, [sys.executable, "-c", sys.argv[2]]
sweep.commands = lambda *_: [(here / name, run) for name in "ab"]
sweep.check_arguments = lambda *_: None
def tell():
    while not any("ready" in path.read_text() for path in (here / "logs").glob("*.txt")):
        time.sleep(0.1)
    print("ready", flush=True)
threading.Thread(target=tell, daemon=True).start()
sys.exit(sweep.main([sys.argv[1]]))"""


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_lets_the_run_save_before_the_sweep_ends(tmp_path):
    """A terminal sends it to the sweep and to the run, which needs a moment for its checkpoint."""
    status, written = interrupt([sys.executable, "-c", SWEEP_OF_TWO, str(config(tmp_path)), RUN], "ready")
    assert (tmp_path / "logs" / "a.txt").read_text() == "ready\nsaved\n"
    assert not (tmp_path / "logs" / "b.txt").exists()
    assert "The same command goes on." in written
    assert status == 130
