"""`hf-logitmix figure`, on runs of the toy and on records that are made up: what is drawn is what the runs say."""

import json
import shlex
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_logitmix import METHODS, get_method
from hf_logitmix.analysis import mutual_information, over_temperatures, project_on_templates, read_snapshots
from hf_logitmix.commands import figure
from hf_logitmix.commands.figure import FIGURES
from hf_logitmix.commands.sweep import file_of
from hf_logitmix.toy import command as toy

ARGS = Namespace(title="", classes=[0, 1, 2], names=None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A few short runs of the toy, with snapshots."""
    folder = tmp_path_factory.mktemp("runs")
    methods = ["vanilla", "label_smoothing", "lamix", "mixup --alpha 0.2", "mixup --alpha 0.7", "mcel"]
    toy.main(["--methods", *methods, "--snapshots", "--steps", "20", "--output_dir", str(folder)])
    return folder


def drawn(name, runs, **changes) -> Figure:
    found = FIGURES[name].draw([str(run) for run in runs], Namespace(**{**vars(ARGS), **changes}))
    assert isinstance(found, Figure)
    return found


def value(folder, metric):
    return json.loads((folder / "all_results.json").read_text())[f"eval_{metric}"]


@pytest.mark.slow
def test_alpha_goes_from_vanilla_through_its_runs(runs):
    panels = drawn("alpha", [runs]).axes
    assert [panel.get_title() for panel in panels] == ["accuracy", "ECE, 10 bins", "NLL"]
    names = ("vanilla", "mixup-alpha-0.2", "mixup-alpha-0.7")
    for panel, metric in zip(panels, ("accuracy", "ece", "nll"), strict=True):
        (line,) = [line for line in panel.lines if len(line.get_xdata()) == 3]
        assert line.get_xdata().tolist() == [0, 0.2, 0.7]
        assert line.get_ydata().tolist() == pytest.approx([value(runs / f"spirals-{n}-0", metric) for n in names])


def test_temperature_is_that_of_the_logits(runs):
    run = runs / "spirals-label_smoothing-0"
    nll, ece = drawn("temperature", [run, runs / "spirals-vanilla-0"]).axes
    with np.load(run / "eval_logits.npz") as saved:
        line = nll.lines[0]
        t = line.get_xdata()
        expected = over_temperatures(saved["logits"], saved["labels"], t.tolist())
    assert (t[0], t[-1]) == (0.25, pytest.approx(4))
    np.testing.assert_allclose(line.get_ydata(), expected["nll"])
    np.testing.assert_allclose(ece.lines[0].get_ydata(), expected["ece"])
    ring = nll.lines[1]
    assert ring.get_ydata()[0] == expected["nll"].min()


def test_projection_shows_three_classes_and_their_templates(runs):
    (panel,) = drawn("projection", [runs / "spirals-vanilla-0"], classes=[2, 0, 1], names=["a", "b", "c"]).axes
    last = read_snapshots(runs / "spirals-vanilla-0")[-1]
    points, stars = project_on_templates(last.features, last.weight, (2, 0, 1), last.bias)
    for number, k in enumerate((2, 0, 1)):
        found = panel.collections[number]
        np.testing.assert_allclose(found.get_offsets(), points[last.labels == k])
        assert found.get_label() == "abc"[k]
    np.testing.assert_allclose(panel.collections[3].get_offsets(), stars)


def test_information_of_a_class_that_there_is_not_is_refused(runs):
    with pytest.raises(ValueError, match=r"^classes=\[1, 3\]: the classes of .*vanilla.* are 0 to 2\.$"):
        drawn("information", [runs / "spirals-vanilla-0"], classes=[1, 3])


def test_information_is_of_two_classes_at_each_snapshot(runs):
    (panel,) = drawn("information", [runs / "spirals-vanilla-0"], classes=[0, 2]).axes
    shots = read_snapshots(runs / "spirals-vanilla-0")
    of_two = [label in (0, 2) for label in shots[0].labels]
    assert panel.lines[0].get_xdata().tolist() == [shot.step for shot in shots]
    expected = [mutual_information((shot.draws[:, :, 0] - shot.draws[:, :, 2])[:, of_two]) for shot in shots]
    assert panel.lines[0].get_ydata() == pytest.approx(expected)
    assert panel.lines[1].get_ydata()[0] == pytest.approx(np.log(400))  # 300 and 100 points


def test_soft_targets_lie_where_beta_puts_them(runs):
    left, middle, right = drawn("soft_targets", [runs / "spirals-lamix-0"]).axes
    low, high = left.get_xlim()
    assert low < 0.5 * 1 / (1 + 2 * np.e) + 0.1
    assert 0.5 < high < 0.5 + 0.5 * np.e / (np.e + 2) + 0.05  # a label's target is 1/2 + p / 2, and p is bounded
    mass = left.collections[0].get_array() ** 2
    np.testing.assert_allclose(mass.sum(1), 1)
    assert len(mass) == 11
    top = [bar.get_height() for bar in right.patches]
    assert len(top) == 3
    assert sum(top) == pytest.approx(1)
    assert top == sorted(top, reverse=True)
    assert middle.get_title() == "global soft labels"


@pytest.mark.slow
def test_embedding_shows_four_snapshots(tmp_path):
    runs, words = tmp_path, ["--methods", "vanilla", "lamix", "--snapshots", "--bottleneck", "--steps", "20"]
    toy.main([*words, "--output_dir", str(runs)])
    panels = drawn("embedding", [runs / "spirals-lamix-0", runs / "spirals-vanilla-0"]).axes
    assert [panel.get_title() for panel in panels] == [f"step {step}" for step in (2, 8, 14, 20)] * 2
    last = read_snapshots(runs / "spirals-lamix-0")[-1]
    np.testing.assert_allclose(panels[3].collections[1].get_offsets(), last.embedding[last.labels == 1])


def test_reliability_has_a_column_for_each_run(runs):
    panels = drawn("reliability", [runs / "spirals-vanilla-0", runs / "spirals-mcel-0"]).axes
    assert [panel.get_title() for panel in panels[:2]] == ["vanilla", "mcel"]


def test_runs_are_named_by_what_tells_them_apart():
    assert figure._apart([list("abc"), list("adc"), list("aec")]) == [["b"], ["d"], ["e"]]
    assert figure._apart([list("abc"), list("abdbc")]) == [["c"], list("dbc")]
    assert figure._apart([list("ab"), list("abb")]) == [["b"], list("bb")]


def record(folder, method, accuracy, seed=1, **more):
    folder.mkdir(parents=True)
    told = {"task": "t", "data": "d", "model": "m", "method_name": method.name, "method": str(method), "seed": seed}
    scores = {"eval_accuracy": accuracy, "eval_ece": 1 - accuracy, "eval_nll": 2 * accuracy, "settings": {}}
    (folder / "all_results.json").write_text(json.dumps({**told, "n_train": 1, "n_eval": 1, **scores, **more}))


def test_losses_are_named_by_their_terms(tmp_path):
    for number, weights in enumerate([(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 0.5)]):
        for seed in (1, 2):
            method = get_method("logitmix", weights=weights)
            record(tmp_path / f"{number}-{seed}", method, 0.5 + 0.05 * number + 0.01 * seed, seed)
    record(tmp_path / "v", METHODS["vanilla"], 0.3)
    record(tmp_path / "m", METHODS["mixup"], 0.4)
    left, right = drawn("losses", [tmp_path]).axes
    rows = [text.get_text() for text in left.get_yticklabels()]
    assert rows[:2] == ["cls (vanilla)", "mix (mixup)"]
    assert set(rows[2:]) == {"cls + sim", "mix + sim", "mix + cls", "mix + cls + sim", "mix + cls + 0.5 sim"}
    points = {row: left.lines[2 * n].get_xdata().tolist() for n, row in enumerate(rows)}
    assert points["mix + cls + sim"] == pytest.approx([0.51, 0.52])
    assert points["mix + sim"] == pytest.approx([0.61, 0.62])
    assert left.lines[2 * rows.index("mix + sim") + 1].get_xdata()[0] == pytest.approx(0.615)
    assert right.lines[2 * rows.index("cls (vanilla)")].get_xdata().tolist() == pytest.approx([0.7])


def test_similarities_are_two_lines_over_alpha_and_over_weights(tmp_path):
    for similarity in ("mse", "mse_softmax"):
        for number in (1, 3):
            alpha, weights = {"alpha": number}, {"weights": (1, 1, number)}
            for name, options in (("alpha", alpha), ("weight", weights)):
                method = get_method("logitmix", similarity=similarity, **options)
                record(tmp_path / name / f"{similarity}-{number}", method, number / 10)
    for name, folder in (("logits_or_probabilities", "alpha"), ("similarity_weight", "weight")):
        lines = drawn(name, [tmp_path / folder]).axes[0].lines
        assert [line.get_xdata().tolist() for line in lines] == [[1, 3]] * 2
        assert [line.get_ydata().tolist() for line in lines] == [[0.1, 0.3]] * 2


def test_class_similarity_is_that_of_the_record(tmp_path):
    matrix = [[0.0, 0.4, 0.6], [0.5, 0.0, 0.5], [0.7, 0.3, 0.0]]
    record(tmp_path / "r", METHODS["mcel"], 0.5, class_similarity=matrix)
    axes = drawn("class_similarity", [tmp_path / "r"]).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), matrix)
    record(tmp_path / "other", METHODS["vanilla"], 0.5)
    with pytest.raises(ValueError, match="found no class similarity"):
        drawn("class_similarity", [tmp_path / "other"])


def test_the_command_writes_its_picture_and_lists_the_figures(runs, tmp_path, capsys):
    assert figure.main(["alpha", str(runs), "--output", str(tmp_path / "a.png"), "--title", "Mixup"]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert figure.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(FIGURES)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["alhpa", "RUNS", "--output", "x.png"], r"figure 'alhpa' is unknown \(did you mean alpha\?\)"),
        (["alpha", "RUNS"], "needs folders of runs and --output"),
        (["alpha", "--output", "x.png"], "needs folders of runs and --output"),
        (["beta", "RUNS/spirals-vanilla-0", "--output", "x.png"], "has the option objective.beta"),
        (["soft_targets", "RUNS/spirals-vanilla-0", "--output", "x.png"], "hold no soft labels: pass a run of LaMix"),
        (["projection", "RUNS", "--output", "x.png"], "holds no snapshots"),
        (["projection", "RUNS/spirals-mcel-0", "--classes", "0", "1", "--output", "x.png"], "three different ones"),
        (["temperature", "RUNS", "--output", "x.png"], "holds no eval_logits.npz"),
        (["projection", "RUNS/spirals-mcel-0", "--names", "a", "--output", "x.png"], "names: 1 for at least 2"),
        (["class_similarity", "RUNS", "--output", "x.png"], "holds 6 runs: pass the folder of one"),
    ],
)
def test_what_cannot_be_drawn_is_told(words, says, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        figure.main([word.replace("RUNS", str(runs)) for word in words])
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_every_figure_with_sweeps_that_there_are():
    text = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    rows = [[cell.strip("` ") for cell in line.split("|")[1:-1]] for line in text.split("\n") if line.startswith("| `")]
    named = {row[0]: row for row in rows if len(row) in (4, 5) and row[0] in FIGURES}
    assert set(named) == set(FIGURES)
    for name, found in FIGURES.items():
        if found.sweep:
            assert named[name][3] == found.sweep
            assert all(file_of(sweep).is_file() for sweep in named[name][3:] if sweep)
    for words in (shlex.split(line) for line in text.split("\n") if line.startswith("hf-logitmix")):
        if words[1] == "figure":
            assert words[2] in FIGURES
        elif words[1] == "sweep":
            assert file_of(words[2]).is_file()
        else:
            assert words[1] == "toy"


def test_no_picture_leaves_pyplot_behind(runs):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    drawn("alpha", [runs])
    assert plt.get_fignums() == before
