"""The folders of Spaces: `evaluate.load` takes them without a network, and their card and page say what they give."""

import json
import re
import runpy
import sys
from types import SimpleNamespace

import evaluate
import pytest
import yaml
from huggingface_hub import SpaceCard

from hf_logitmix.calibration.evaluate_spaces import write_space
from hf_logitmix.metrics import METRICS, calibration_metrics

LOGITS, LABELS = [[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.5, 0.0, 3.0], [1.0, 1.5, 0.0]], [0, 1, 1, 0]
NAMES = [*METRICS, "calibration"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A module of a Space's folder, as `evaluate` loads it, in a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", cache / "modules")
        patch.setattr(sys, "path", [*sys.path])
        for name in [one for one in sys.modules if one.partition(".")[0] == "evaluate_modules"]:
            patch.delitem(sys.modules, name)
        yield lambda folder, **options: evaluate.load(str(folder), cache_dir=str(cache), **options)


@pytest.mark.parametrize("name", ["ece", "coverage_at_risk_5", "calibration"])
def test_a_space_loads_as_a_module(name, tmp_path, loaded):
    folder = write_space(name, tmp_path)
    assert folder == tmp_path / name
    found = loaded(folder).compute(predictions=LOGITS, references=LABELS, n_bins=5)
    expected = calibration_metrics(LOGITS, LABELS, n_bins=5)
    assert found == pytest.approx(expected if name == "calibration" else {name: expected[name]})
    assert loaded(folder, n_bins=5).compute(predictions=LOGITS, references=LABELS) == found


@pytest.mark.parametrize("name", NAMES)
def test_the_card_has_what_the_hub_reads_and_says_what_comes_out(name, tmp_path):
    folder = write_space(name, tmp_path, requirement="hf_logitmix[evaluate] @ git+https://example.org/it")
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert {"evaluate", "metric"} <= set(head["tags"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", head["sdk_version"])
    assert SpaceCard(text).data.title == head["title"]
    assert "\n" not in head["description"]
    (folder / head["app_file"]).read_text()
    assert (folder / "requirements.txt").read_text() == "hf_logitmix[evaluate] @ git+https://example.org/it\n"
    given = re.search(r"predictions=(\[\[.*\]\]), references=(\[.*?\])", text)
    shown = json.loads(re.search(r"^# (\{.*\})$", text, flags=re.MULTILINE)[1].replace("'", '"'))
    expected = calibration_metrics(json.loads(given[1]), json.loads(given[2]))
    assert shown == pytest.approx({key: expected[key] for key in shown}, abs=5e-5)
    for metric in shown:
        better = "higher" if METRICS[metric].higher_is_better else "lower"
        assert re.search(rf"^\* `{metric}`: .*; {better} is better\.$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["nll", "calibration"])
def test_the_page_computes_what_is_typed_in(name, tmp_path, monkeypatch):
    """Without gradio: what it is told to show is kept."""
    made = {}

    def part(*args, **kwargs):
        return SimpleNamespace(args=args, kwargs=kwargs)

    def interface(compute, inputs, outputs, **kwargs):
        made.update(compute=compute, inputs=inputs, **kwargs)

    stub = SimpleNamespace(Interface=interface, Textbox=part, Number=part, JSON=part)
    monkeypatch.setitem(sys.modules, "gradio", stub)
    folder = write_space(name, tmp_path)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    runpy.run_path(str(folder / "app.py"))
    logits, labels, n_bins = (one.args[0] for one in made["inputs"])
    expected = calibration_metrics(json.loads(logits), json.loads(labels), n_bins)
    assert made["compute"](logits, labels, n_bins) == pytest.approx(
        expected if name == "calibration" else {"nll": expected["nll"]}
    )
    monkeypatch.delitem(sys.modules, name)


def test_another_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"name='acc' is no metric: pass one of accuracy, ece, .*, or 'calibration'"):
        write_space("acc", tmp_path)
    assert not any(tmp_path.iterdir())
