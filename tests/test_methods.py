"""Methods: published defaults, options, errors and schedules, against tables and formulas written here by hand."""

import dataclasses
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from transformers import BertConfig, BertForSequenceClassification

from hf_logitmix import METHODS, Method, get_method, objectives
from hf_logitmix.criteria import Focal, OneVsAll
from hf_logitmix.mixing import CutMix, Linear, NoMixing, PuzzleMix, SpanMix, Switch
from hf_logitmix.objectives import MIT, Clean, Distillation, LaMix, LogitMix, Mixed, RegMixup
from hf_logitmix.pairing import Beta, Constant, RandomPairs, Uniform
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step

# name -> mixing, alpha, level, objective, weights, eps
PUBLISHED = {
    "vanilla": (NoMixing, None, None, Clean, None, None),
    "label_smoothing": (NoMixing, None, None, Clean, None, 0.1),
    "infogain": (NoMixing, None, None, Clean, None, None),
    "mcel": (NoMixing, None, None, Clean, None, 0.2),
    "sg_mcel": (NoMixing, None, None, Clean, None, 0.2),
    "gmcel": (NoMixing, None, None, Clean, None, 0.2),
    "focal": (NoMixing, None, None, Clean, None, None),
    "bce": (NoMixing, None, None, Clean, None, None),
    "mixup": (Linear, 0.4, "embedding", Mixed, None, None),
    "manifold_mixup": (Linear, 2.0, "manifold", Mixed, None, None),
    "cutmix": (CutMix, 1.0, None, Mixed, None, None),
    "puzzlemix": (PuzzleMix, 1.0, None, Mixed, None, None),
    "logitmix": (Linear, 3.0, "embedding", LogitMix, (1, 1, 1), None),
    "logitmix_m": (Linear, 3.0, "embedding", LogitMix, (1, 1, 1), None),
    "logitmix_c": (CutMix, 1.0, None, LogitMix, (1, 1, 0.1), None),
    "logitmix_p": (PuzzleMix, 1.0, None, LogitMix, (1, 1, 1), None),
    "lamix": (Linear, 1.0, "embedding", LaMix, None, None),
    "lamix_p": (PuzzleMix, 1.0, None, LaMix, None, None),
    "remix": (Linear, 1.0, "embedding", Mixed, None, None),
    "c_mixup": (Linear, 2.0, "embedding", Mixed, None, None),
    "mixup_cutmix": (Switch, 0.8, None, Mixed, None, None),
    "ssmix": (SpanMix, None, None, Mixed, None, None),
    "regmixup": (Linear, 20.0, "embedding", RegMixup, None, None),
    "mit": (Linear, 0.5, "embedding", MIT, None, None),
    "distillation": (NoMixing, None, None, Distillation, None, None),
}


def tiny_bert(**config) -> BertForSequenceClassification:
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=11, **size, **config))


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_are_the_published_ones(name):
    mixing, alpha, level, objective, weights, eps = PUBLISHED[name]
    method = get_method(name)
    assert (type(method.mixing), type(method.objective)) == (mixing, objective)
    drawn = method.pairing.lam if method.pairing.label_lam is None else method.pairing.label_lam
    assert alpha is None or drawn == Beta(alpha)
    assert getattr(method.mixing, "level", None) == level
    assert getattr(method.objective, "weights", None) == weights
    assert getattr(method.objective, "similarity", "mse") == "mse"
    assert getattr(method.objective, "warmup", "none") == "none"
    assert getattr(method.targets, "eps", None) == eps
    assert (method.pairing.fraction, method.pairing.prob, method.pairing.per_example) == (1.0, 1.0, False)


def test_every_method_is_in_the_table_above():
    assert set(PUBLISHED) == set(METHODS)


def test_defaults_of_lamix_and_puzzlemix_are_the_published_ones():
    lamix, with_puzzles, puzzle = (get_method(name) for name in ("lamix", "lamix_p", "puzzlemix"))
    assert (lamix.objective.beta, with_puzzles.objective.beta) == (0.5, 1.0)
    assert (lamix.objective.clean_batches, lamix.objective.detach_target) == (True, False)
    for method in (lamix, with_puzzles):
        assert (method.pairing.lam, method.pairing.label_lam) == (Constant(0.5), Beta(1.0))  # which is uniform
    mixing = puzzle.mixing
    assert (mixing.label_smoothness, mixing.data_smoothness, mixing.prior_weight) == (1.2, 0.5, 0.2)
    assert (mixing.neigh_size, mixing.n_labels, mixing.transport, mixing.t_eps) == (4, 3, True, 0.8)


def test_defaults_of_the_other_rows_are_the_published_ones():
    focal, remix, switch, regmixup = (get_method(name) for name in ("focal", "remix", "mixup_cutmix", "regmixup"))
    ssmix = get_method("ssmix")
    assert (ssmix.pairing, ssmix.mixing) == (RandomPairs(lam=Constant(0.9)), SpanMix(saliency=True))
    assert focal.criterion == Focal(gamma=3.0)
    assert get_method("bce").criterion == OneVsAll(target_threshold=None, sum_classes=False)
    assert (remix.pairing.kappa, remix.pairing.tau) == (3.0, 0.5)
    assert (switch.mixing.switch_prob, switch.mixing.second_lam) == (0.5, Beta(1.0))
    assert regmixup.objective.eta == 1.0


def test_rows_that_each_objective_asks_for():
    rows = {name: METHODS[name].objective.rows(Step(5, 9)) for name in ("vanilla", "mixup", "logitmix")}
    assert rows == {"vanilla": "clean", "mixup": "mixed", "logitmix": "both"}


def test_options_reach_their_part_and_leave_the_table_alone():
    method = get_method(
        "logitmix", alpha=1, level="hidden:2", per_example=True, mix_fraction=0.5, weights=[1, 0, 2], similarity="l2"
    )
    assert method.mixing == Linear(level="hidden:2")
    assert method.pairing == RandomPairs(lam=Beta(1), per_example=True, fraction=0.5)
    assert method.objective.weights == (1.0, 0.0, 2.0)
    assert method.objective.similarity == "l2"
    assert get_method("logitmix").pairing.lam == Beta(3.0)
    assert get_method("label_smoothing", eps=0.2).targets.eps == 0.2
    with pytest.raises(TypeError):
        METHODS["mine"] = Method()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("logitmax", {}, "method='logitmax'.*logitmix"),
        ("logitmix", {"alpha": 0}, "alpha must be .* got 0"),
        ("logitmix", {"alpha": math.nan}, "alpha must be .* got nan"),
        ("logitmix", {"alhpa": 1}, "alhpa is not an option.*alpha"),
        ("vanilla", {"alpha": 1}, "alpha is not an option"),
        ("mixup", {"weights": (1, 1, 1)}, "weights is not an option.*alpha"),
        ("logitmix", {"draw": 0.5}, "draw is not an option"),
        ("logitmix", {"level": "hidden"}, "level='hidden'"),
        ("logitmix", {"level": "hidden:0"}, "level='hidden:0'"),
        ("logitmix", {"level": "hidden:-1"}, "level='hidden:-1'"),
        ("logitmix", {"level": 3}, "level=3"),
        ("logitmix", {"similarity": "cosine"}, "similarity must be .*mse.* got 'cosine'"),
        ("logitmix", {"weights": (1, 1)}, "weights must be three numbers"),
        ("logitmix", {"weights": (1, -1, 1)}, "weights must be three numbers"),
        ("logitmix", {"weights": (0, 0, 0)}, "weights must be three numbers"),
        ("logitmix", {"weights": (1, math.nan, 1)}, "weights must be three numbers"),
        ("logitmix", {"mix_fraction": 0}, "mix_fraction must be .* got 0"),
        ("logitmix", {"mix_fraction": 1.01}, "mix_fraction must be .* got 1.01"),
        ("logitmix", {"mix_fraction": math.nan}, "mix_fraction must be .* got nan"),
        ("mixup", {"mix_fraction": 0.5}, "mix_fraction=0.5"),
        ("logitmix", {"warmup": "linear"}, "warmup must be .*ramp.* got 'linear'"),
        ("logitmix", {"warmup": "ramp", "milestones": (0.7, 0.3)}, "milestones must be"),
        ("logitmix", {"warmup": "ramp", "milestones": (0.5, 0.5)}, "milestones must be"),
        ("logitmix", {"warmup": "ramp", "milestones": (0.0,)}, "milestones must be"),
        ("logitmix", {"warmup": "ramp", "milestones": (0.5, 1.0)}, "milestones must be"),
        ("cutmix", {"prob": 0}, "prob must be .* got 0"),
        ("cutmix", {"prob": 1.5}, "prob must be .* got 1.5"),
        ("mixup", {"lam": 1.5}, "lam must be .* got 1.5"),
        ("mixup", {"label_lam": "mine"}, "label_lam must be .* got 'mine'"),
        ("mixup", {"off_after": 0}, "off_after must be .* got 0"),
        ("mixup", {"partners": "near"}, "partners must be one of any, length, got 'near'"),
        ("mixup", {"criterion": "hinge"}, "criterion must be .* got 'hinge'"),
        ("label_smoothing", {"eps": 1.0}, "eps=1.0"),
        ("focal", {"gamma": -1}, "gamma must be a number >= 0 or 'sd53', got -1"),
        ("focal", {"gamma": "sd35"}, "gamma must be a number >= 0 or 'sd53', got 'sd35'"),
        ("remix", {"kappa": 0.5}, "kappa must be at least 1, got 0.5"),
        ("remix", {"tau": 1.5}, "tau must be in .* got 1.5"),
        ("remix", {"label_lam": "uniform"}, "label_lam must be left out"),
        ("c_mixup", {"bandwidth": 0}, "bandwidth must be a number > 0, got 0"),
        ("c_mixup", {"partners": "length"}, "partners must be 'any', got 'length'"),
        ("mixup_cutmix", {"switch_prob": 1.1}, "switch_prob must be in .* got 1.1"),
        ("mixup_cutmix", {"second_lam": 2}, "second_lam must be .* got 2"),
        ("ssmix", {"special_ids": "[SEP]"}, "special_ids must be ids of tokens, .* got '\\[SEP\\]'"),
        ("ssmix", {"special_ids": (101, -1)}, "special_ids must be ids of tokens"),
        ("ssmix", {"alpha": 1.0}, "alpha is not an option of this method: it has lam"),
        ("regmixup", {"eta": -1}, "eta must be a number >= 0, got -1"),
        ("vanilla", {"class_weights": "even"}, "class_weights must be 'balanced' or .* got 'even'"),
        ("vanilla", {"class_weights": (1, -1, 1)}, "class_weights must be 'balanced' or"),
        ("vanilla", {"class_weights": (0, 0, 0)}, "class_weights must be 'balanced' or"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        get_method(name, **options)


@pytest.mark.parametrize("objective", [LogitMix(), Mixed()])
def test_objectives_on_mixed_rows_need_a_mixing(objective):
    with pytest.raises(ValueError, match=r"mixing=NoMixing\(\)"):
        Method(NoMixing(), objective)


# ---- fit to a model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "labels", "problem_type", "message"),
    [
        (get_method("logitmix_c"), 3, "single_label_classification", "CutMix"),
        (get_method("logitmix", level="hidden:3"), 3, "single_label_classification", "level='hidden:3'.*hidden:2"),
        (get_method("logitmix", similarity="mse_logsoftmax"), 1, "regression", "similarity='mse_logsoftmax'"),
        (get_method("logitmix", similarity="mse_softmax"), 3, "multi_label_classification", "similarity='mse_softmax'"),
        (get_method("focal"), 1, "regression", "criterion=Focal"),
        (get_method("remix"), 1, "regression", "Remix counts classes"),
        (get_method("c_mixup"), 3, "single_label_classification", "pairing=CMixup.* is for regression"),
        (get_method("mixup_cutmix"), 3, "single_label_classification", "mixing=Switch.* is for images"),
        (get_method("mixup", class_weights="balanced"), 1, "regression", "class_weights='balanced' is for classes"),
        (get_method("mixup", class_weights=(1, 2)), 3, "single_label_classification", "class_weights has 2 numbers"),
        (get_method("label_smoothing"), 1, "regression", "targets=LabelSmoothing"),
        (get_method("label_smoothing"), 3, "multi_label_classification", "targets=LabelSmoothing"),
        (get_method("mixup", targets=torch.eye(2)), 3, "single_label_classification", "targets have 2 rows"),
    ],
)
def test_check_refuses_what_the_model_cannot_do(method, labels, problem_type, message):
    with pytest.raises(ValueError, match=message):
        method.check(tiny_bert(), LabelSpec(labels, problem_type))


@pytest.mark.parametrize("similarity", ["mse", "l2"])
@pytest.mark.parametrize(("labels", "problem_type"), [(1, "regression"), (3, "multi_label_classification")])
def test_check_accepts_logitmix_for_numbers_and_multi_label(similarity, labels, problem_type):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_method("logitmix", similarity=similarity).check(tiny_bert(), LabelSpec(labels, problem_type))


# ---- schedules ------------------------------------------------------------------------------------------------


def shares(objective, progress, runs=600, steps=1000):
    """Shares of plain CE, mixed CE and LogitMix at one place in training, over many seeds."""
    kinds = [objective.rows(Step(round(progress * steps), steps, seed)) for seed in range(runs)]
    return [kinds.count(kind) / runs for kind in ("clean", "mixed", "both")]


def ramp_by_hand(t, drop=None):
    """None where plain CE is due, else the probability of LogitMix; one drop of the learning rate at most."""
    end = 1.0 if drop is None else drop
    if t < end:
        t = t / end
        if t < 0.2:
            return None
        return 2 * t - 0.4 if t < 0.7 else 1.0
    t = (t - drop) / (1 - drop)
    return t / 0.7 if t < 0.7 else 1.0


@pytest.mark.parametrize("drop", [None, 0.5, 0.8], ids=lambda d: f"drop_{d}")
@pytest.mark.parametrize("t", [0.0, 0.1, 0.15, 0.2, 0.3, 0.45, 0.49, 0.5, 0.55, 0.69, 0.75, 0.8, 0.82, 0.9, 0.999])
def test_ramp_follows_the_piecewise_formula(t, drop):
    objective = LogitMix(warmup="ramp", milestones=() if drop is None else (drop,))
    expected = ramp_by_hand(t, drop)
    plain, mixed, logitmix = shares(objective, t)
    assert plain == (expected is None)
    assert logitmix == pytest.approx(expected or 0, abs=0.08)
    assert mixed == pytest.approx(0 if expected is None else 1 - expected, abs=0.08)


def test_ramp_restarts_at_each_of_two_drops():
    objective = LogitMix(warmup="ramp", milestones=(0.5, 0.75))
    at_start, before, at_drop, halfway = (shares(objective, t)[2] for t in (0.5, 0.749, 0.75, 0.75 + 0.7 * 0.25 / 2))
    assert (at_start, before, at_drop) == (0, 1, 0)
    assert halfway == pytest.approx(0.5, abs=0.08)


def test_share_of_logitmix_over_a_whole_run_is_the_area_under_the_ramp():
    """.2 of plain CE, then a triangle of area .25 under the line up to .7, then .3 of LogitMix."""
    objective = LogitMix(warmup="ramp")
    kinds = [objective.rows(Step(step, 10_000)) for step in range(10_000)]
    assert kinds.count("clean") == 2000
    assert kinds.count("both") / 10_000 == pytest.approx(0.25 + 0.3, abs=0.02)
    assert "clean" not in kinds[2000:]
    assert set(kinds[7000:]) == {"both"}


@pytest.mark.parametrize("steps", [10, 100, 30, 70])
def test_step_is_plain_for_exactly_the_first_tenth(steps):
    objective = LogitMix(warmup="step", weights=(1, 2, 3))
    kinds = [objective.rows(Step(step, steps)) for step in range(steps)]
    assert kinds == ["clean"] * (steps // 10) + ["both"] * (steps - steps // 10)


@pytest.mark.parametrize("warmup", ["step", "ramp"])
def test_a_warmup_asks_for_what_it_says_and_for_nothing_else(warmup):
    objective = LogitMix(warmup=warmup)
    assert {objective.rows(Step(step, 400, seed)) for step in range(400) for seed in range(3)} == objective.kinds


def test_a_step_draws_the_same_however_often_it_is_asked():
    objective = LogitMix(warmup="ramp")
    first, again = ([objective.rows(Step(step, 100, seed=4)) for step in range(100)] for _ in range(2))
    assert first == again
    assert first != [objective.rows(Step(step, 100, seed=5)) for step in range(100)]


def test_manifold_draws_its_layer_uniformly_and_apart_from_the_warmup():
    """The draw of a step is uniform in [0, 1), and among steps that the ramp made LogitMix too."""
    steps = [Step(step, 4000) for step in range(800, 2800)]
    kept = [step.uniform("level") for step in steps if LogitMix(warmup="ramp").rows(step) == "both"]
    assert stats.kstest([step.uniform("level") for step in steps], "uniform").pvalue > 0.01
    assert stats.kstest(kept, "uniform").pvalue > 0.01


def test_an_option_of_two_parts_has_its_full_name():
    @dataclasses.dataclass(frozen=True)
    class Focused(Clean):
        alpha: float = 0.25

        kinds = frozenset({"mixed"})

    method = Method(Linear(), Focused(), pairing=RandomPairs(lam=Beta(2.0), label_lam=Uniform()))
    with pytest.raises(ValueError, match=r"several parts.*pairing__lam__alpha or.*objective__alpha"):
        method.with_options(alpha=0.5)
    changed = method.with_options(objective__alpha=0.5, pairing__lam__alpha=0.1, level="hidden:1")
    assert (changed.objective.alpha, changed.pairing.lam, changed.mixing.level) == (0.5, Beta(0.1), "hidden:1")
    assert (method.objective.alpha, method.pairing.lam) == (0.25, Beta(2.0))


def test_what_a_field_holds_is_changed_after_the_field():
    method = get_method("lamix", alpha=0.5, label_lam=Beta(7.0))
    assert method.pairing == RandomPairs(lam=Constant(0.5), label_lam=Beta(0.5))
    assert get_method("lamix", label_lam="half").pairing.label_lam == Constant(0.5)
    assert get_method("lamix", lam=Beta(3.0), label_lam="half", alpha=0.5).pairing.lam == Beta(0.5)
    with pytest.raises(ValueError, match="alpha is not an option"):
        get_method("lamix", alpha=0.5, label_lam="half")


def test_a_part_in_the_place_of_another_is_refused():
    for name, part in (("mixing", SimpleNamespace(mixes=False)), ("pairing", Linear()), ("objective", Linear())):
        with pytest.raises(ValueError, match=f"{name} must be an object of hf_logitmix"):
            Method(**{"mixing": Linear(), "objective": LogitMix(), name: part})


def test_names_of_older_releases_still_work():
    assert get_method("logitmix", drops=(0.5,)).objective.milestones == (0.5,)
    assert get_method("sg_mcel", p=1.0).targets.norm == 1.0
    assert (objectives.CrossEntropy, objectives.MixedCrossEntropy) == (Clean, Mixed)


def test_what_would_have_no_effect_is_refused():
    with pytest.raises(ValueError, match=r"pairing=RandomPairs.* would have no effect"):
        Method(pairing=RandomPairs(prob=0.5))
    with pytest.raises(ValueError, match="lam must be"):
        RandomPairs(lam=[1, 2])
