"""The toy: its points by their formula, its training against a loop of torch alone, and that no method is forgotten."""

import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from hf_logitmix import METHODS
from hf_logitmix.analysis import read_snapshots
from hf_logitmix.commands import report
from hf_logitmix.commands.table import read_runs
from hf_logitmix.evidence.comparison import compare
from hf_logitmix.evidence.records import read_records
from hf_logitmix.figures.surfaces import colours_of, probability_surfaces
from hf_logitmix.toy import command as toy
from hf_logitmix.toy.command import entries, left_out, method_of, surface
from hf_logitmix.toy.points import PlaneNetwork, spirals
from hf_logitmix.toy.training import Settings, train

SHORT = Settings(counts=(30, 20, 10), held_out=60, steps=12, batch_size=16, width=8, depth=2)


def test_points_lie_on_their_arms():
    points = spirals((40, 30, 20), 0.0, seed=3)
    assert points.labels.tolist() == [0] * 40 + [1] * 30 + [2] * 20
    radius = points.xy.norm(dim=1)
    turn = (radius - 0.3) / 2.7
    angle = 2 * torch.pi * (points.labels / 3 + turn)
    torch.testing.assert_close(points.xy, torch.stack([radius * angle.cos(), radius * angle.sin()], 1))
    assert (turn.min(), turn.max()) >= (0, 0.9)
    noisy = spirals((4000, 4000), 0.25, seed=3).xy - spirals((4000, 4000), 0.0, seed=3).xy
    assert float(noisy.std()) == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(("entry", "smoothing"), [("vanilla", 0.0), ("label_smoothing --eps 0.3", 0.3)])
def test_training_is_a_loop_of_torch_alone(entry, smoothing):
    points, held_out = spirals(SHORT.counts, 0.25, 0), spirals((30, 20, 10), 0.25, 1)
    found = train(method_of(entry), points, held_out, SHORT, seed=5)
    torch.manual_seed(5)
    model = PlaneNetwork(3, 8, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        order = torch.randperm(60, generator=generator)
        for batch in order[:48].split(16):  # 12 of each round are left out
            hidden = points.xy[batch]
            for layer in model.layers:
                hidden = F.relu(F.linear(hidden, layer[0].weight, layer[0].bias))
            logits = F.linear(hidden, model.classifier.weight, model.classifier.bias)
            optimizer.zero_grad()
            F.cross_entropy(logits, points.labels[batch], label_smoothing=smoothing).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        by_hand = model(held_out.pixel_values)
    np.testing.assert_allclose(found.logits, by_hand, atol=1e-5)
    assert found.record["eval_accuracy"] == pytest.approx(float((by_hand.argmax(1) == held_out.labels).float().mean()))
    assert found.record["eval_nll"] == pytest.approx(float(F.cross_entropy(by_hand, held_out.labels)), rel=1e-5)


@pytest.mark.slow
def test_a_report_calls_runs_as_they_were_asked_for(tmp_path, capsys):
    words = ["--methods", "vanilla", "vanilla --criterion squared", "mixup --label-lam 0.5", "--steps", "2"]
    assert toy.main([*words, "--output_dir", str(tmp_path)]) == 0
    assert report.main([str(tmp_path)]) == 0
    (found,) = compare(read_records(tmp_path))
    assert {row.label for row in found.rows} == {"vanilla", "vanilla --criterion squared", "mixup --label-lam 0.5"}
    page = (tmp_path / "report.html").read_text()
    assert "hf-logitmix toy --methods &#x27;vanilla --criterion squared&#x27; --seed 0 --steps 2" in page


def test_every_method_of_the_table_is_drawn_or_left_out_with_a_reason():
    chosen = {entry.split()[0] for entry in entries()}
    assert chosen | {"logitmix_m"} | {name for name in METHODS if left_out(name)} == set(METHODS)  # one of two names
    regions = ("cutmix", "puzzlemix", "logitmix_c", "logitmix_p", "lamix_p", "mixup_cutmix")
    reasons = dict.fromkeys(regions, "for images")
    reasons |= {"c_mixup": "for scores", "ssmix": "for texts"}
    assert {name: reason for name in METHODS if (reason := left_out(name))} == reasons
    criteria = [entry for entry in entries() if "--criterion" in entry]
    assert criteria == [f"vanilla --criterion {name}" for name in ("squared", "dual_focal", "margin")]


@pytest.mark.slow
def test_all_of_them_train_and_leave_records_that_tables_read(tmp_path, capsys):
    assert toy.main(["--steps", "4", "--output_dir", str(tmp_path)]) == 0
    runs = read_runs(tmp_path)
    assert len(runs) == len(entries())
    assert {run["task"] for run in runs} == {"spirals"}
    assert all(np.isfinite(run["eval_nll"]) for run in runs)
    assert len({run["eval_nll"] for run in runs}) > len(runs) - 3  # hardly any two of them are the same training
    shown = capsys.readouterr().out
    assert "one seed (0)" in shown
    assert "synthetic" in shown
    assert "Left out: cutmix, puzzlemix, logitmix_c, logitmix_p, lamix_p, mixup_cutmix (for images" in shown
    assert (tmp_path / "toy.png").stat().st_size > 50_000


@pytest.mark.slow
def test_chosen_methods_keep_their_options_and_snapshots(tmp_path, capsys):
    words = ["--methods", "mixup --alpha 0.2", "lamix", "--snapshots", "--bottleneck", "--steps", "20"]
    assert toy.main([*words, "--output_dir", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "spirals-mixup-alpha-0.2-0" / "all_results.json").read_text())
    assert "Beta(alpha=0.2)" in record["method"]
    shots = read_snapshots(tmp_path / "spirals-lamix-0")
    assert [shot.step for shot in shots] == list(range(0, 21, 2))
    assert shots[-1].draws.shape == (20, 600, 3)
    assert shots[-1].soft.shape == (600, 3)
    assert shots[-1].embedding.shape == (600, 2)
    assert "Left out" not in capsys.readouterr().out


def test_what_is_no_option_of_a_method_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--learning_rate is no option of a method"):
        method_of("vanilla --learning_rate 0.1")
    with pytest.raises(ValueError, match="method='mixpu' is unknown"):
        method_of("mixpu")
    with pytest.raises(ValueError, match="alpha is not an option of this method"):
        method_of("vanilla --alpha 0.1")
    with pytest.raises(ValueError, match="method cutmix is for images, and these are points"):
        method_of("cutmix")
    with pytest.raises(ValueError, match="steps=0: pass at least one"):
        toy.main(["--steps", "0", "--output_dir", str(tmp_path)])


def test_a_surface_has_the_probabilities_of_its_places():
    torch.manual_seed(0)
    model = PlaneNetwork(3, 8, 2)
    found = surface(model)
    for row, column in ((0, 0), (199, 0), (17, 150)):
        place = torch.tensor([[-3.8 + 7.6 * column / 199, -3.8 + 7.6 * row / 199]])
        with torch.no_grad():
            by_hand = model(place[:, :, None, None]).softmax(-1)[0]
        np.testing.assert_allclose(found[row, column], by_hand, atol=1e-5)


def test_colours_are_white_where_nothing_is_known_and_full_where_a_class_is_sure():
    assert colours_of([1 / 3, 1 / 3, 1 / 3]).tolist() == pytest.approx([1, 1, 1])
    sure = colours_of(np.eye(3))
    half = colours_of([[0.5, 0.5, 0.0]])[0]
    expected = 0.25 * (sure[0] + sure[1]) / 2 + 0.75  # (1/2 - 1/3) / (1 - 1/3) = 1/4
    assert half.tolist() == pytest.approx(expected.tolist())
    with pytest.raises(ValueError, match="11 classes"):
        colours_of(np.full(11, 1 / 11))


def test_the_picture_has_a_panel_for_each_network():
    p = np.random.default_rng(0).dirichlet([1, 1, 1], size=(9, 9))
    figure = probability_surfaces({"a": (p, "A"), "b": (p, "B")}, 2.0, np.zeros((4, 2)), [0, 1, 2, 0])
    assert isinstance(figure, Figure)
    panels = [axes for axes in figure.axes if axes.images]
    assert [(axes.get_title(), axes.get_xlabel()) for axes in panels] == [("a", "A"), ("b", "B")]
    np.testing.assert_allclose(panels[0].images[0].get_array(), colours_of(p))
    assert sum(len(scatter.get_offsets()) for scatter in panels[0].collections if len(scatter.get_offsets()) > 0) >= 4
    with pytest.raises(ValueError, match="panels is empty"):
        probability_surfaces({}, 1.0, np.zeros((1, 2)), [0])
    with pytest.raises(ValueError, match=r"points \(3, 2\) and 1 labels"):
        probability_surfaces({"a": (p, "")}, 1.0, np.zeros((3, 2)), [0])
