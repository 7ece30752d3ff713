"""The synthetic corpus against its own description: a second reading of the grammar, and frequencies of the labels."""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from hf_logitmix.glue import demo_corpus
from hf_logitmix.glue.demo_corpus import clause, example, write_corpus

SIZES = {"train": 300, "dev": 200}
RUN_GLUE = Path(__file__).parents[2] / "glue_runs" / "run_glue.py"


def rows(path):
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header == "sentence\tlabel"
    return [tuple(line.split("\t")) for line in lines]


def test_the_same_seed_writes_the_same_files(tmp_path):
    first, second, other = (write_corpus(tmp_path / str(n), SIZES, seed) for n, seed in enumerate((7, 7, 8)))
    assert first == second
    assert first != other
    for split in SIZES:
        contents = [(tmp_path / str(n) / f"{split}.tsv").read_bytes() for n in range(3)]
        assert contents[0] == contents[1]
        assert contents[0] != contents[2]


@pytest.mark.parametrize("seed", range(3))
def test_sizes_classes_and_no_sentence_twice(tmp_path, seed):
    returned = write_corpus(tmp_path, SIZES, seed)
    found = {split: rows(tmp_path / f"{split}.tsv") for split in SIZES}
    sentences = [text for split in found.values() for text, _ in split]
    assert {split: len(members) for split, members in found.items()} == SIZES
    assert len(set(sentences)) == len(sentences)
    assert returned == [text for text, _ in found["train"]]
    for members in found.values():
        share = sum(label == "1" for _, label in members) / len(members)
        assert {label for _, label in members} == {"0", "1"}
        assert 0.35 < share < 0.65


def strength_of(words):
    """Read a clause from its end: adjective, perhaps a modifier, perhaps "not", which turns and weakens."""
    strength = demo_corpus.ADJECTIVES[words[-1]]
    if words[-2] in demo_corpus.MODIFIERS:
        strength, words = strength * demo_corpus.MODIFIERS[words[-2]], words[:-1]
    return demo_corpus.NOT_WEAKENS * strength if words[-2] == "not" else strength


def test_strength_of_a_clause_is_adjective_times_modifier_turned_by_not():
    rng, kinds = random.Random(0), set()
    for _ in range(3000):
        text, strength = clause(rng)
        words = text.split()
        assert strength == pytest.approx(strength_of(words)), text
        kinds.add(("not" in words, bool(set(words) & (set(demo_corpus.MODIFIERS) - {""}))))
    assert kinds == {(negated, modified) for negated in (False, True) for modified in (False, True)}


def test_the_tables_say_what_the_words_mean():
    strengths, scales = demo_corpus.ADJECTIVES, demo_corpus.MODIFIERS
    assert strengths["superb"] > strengths["good"] > 0 > strengths["bad"] > strengths["dreadful"]
    assert scales["very"] > scales[""] == 1 > scales["slightly"] > 0
    assert -1 < demo_corpus.NOT_WEAKENS < 0
    assert demo_corpus.JOINS["but"][1] > demo_corpus.JOINS["but"][0]
    assert 0 < demo_corpus.TURNED_OVER < 0.5


def test_adjectives_are_between_minus_two_and_two_and_of_both_kinds():
    assert max(map(abs, demo_corpus.ADJECTIVES.values())) == 2.0
    assert {strength > 0 for strength in demo_corpus.ADJECTIVES.values()} == {True, False}


def praise(strength):
    """sigmoid of the strength, sharpened, and then a share of the labels turned over."""
    kept = 1 / (1 + math.exp(-demo_corpus.SHARPNESS * strength))
    return (1 - demo_corpus.TURNED_OVER) * kept + demo_corpus.TURNED_OVER * (1 - kept)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (0.2, -0.1), (-0.25, 0.1), (3.0, 3.0), (-3.0, -3.0)])
def test_labels_follow_the_stated_probability(monkeypatch, first, second):
    """Clauses of known strength: the share of praise for each join, within five standard deviations."""
    strengths = []

    def known(rng):
        strengths.append(second if len(strengths) % 2 else first)
        return f"clause{len(strengths) % 2}", strengths[-1]

    monkeypatch.setattr(demo_corpus, "clause", known)
    weights = {"": (1.0, 0.0), **demo_corpus.JOINS}
    rng, labels = random.Random(1), {join: [] for join in weights}
    for _ in range(20_000):
        strengths.clear()
        text, label = example(rng)
        join = next((join for join in weights if join and f" {join} clause" in text), "")
        assert (join != "") == (len(strengths) == 2)
        labels[join].append(label)
    for join, (left, right) in weights.items():
        p, n = praise(left * first + right * second), len(labels[join])
        assert n > 2000
        assert sum(labels[join]) / n == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n)), join


def test_labels_of_whole_sentences_are_as_probable_as_a_second_reading_says():
    """Sentences sorted by the probability that their words give: in each tenth the share of praise agrees with it."""
    rng, pairs = random.Random(2), []
    for _ in range(20_000):
        text, label = example(rng)
        words = text.removesuffix(" .").split()
        at = next((n for n, word in enumerate(words) if word in demo_corpus.JOINS), None)
        if at is None:
            strength = strength_of(words)
        else:
            left, right = demo_corpus.JOINS[words[at]]
            strength = left * strength_of(words[:at]) + right * strength_of(words[at + 1 :])
        pairs.append((praise(strength), label))
    pairs.sort()
    for start in range(0, len(pairs), 2000):
        tenth = pairs[start : start + 2000]
        p = sum(expected for expected, _ in tenth) / 2000
        share = sum(label for _, label in tenth) / 2000
        assert share == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 2000))


@pytest.mark.slow
def test_the_demo_runs_offline_and_shows_three_methods(tmp_path):
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(RUN_GLUE), "--demo"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert "synthetic" in done.stdout.lower()
    table = done.stdout[done.stdout.index("\nmethod ") :].splitlines()[1:]
    header = ["accuracy", "ECE", "OE", "NLL", "ECE scaled", "NLL scaled", "T", "seconds"]
    assert table[0].split() == ["method", *" ".join(header).split()]
    assert [line.split()[0] for line in table[1:4]] == ["vanilla", "mixup", "logitmix"]
    for line in table[1:4]:
        accuracy, *calibration, seconds = map(float, line.split()[1:])
        assert len(calibration) == len(header) - 2
        assert 0.6 < accuracy < 0.94
        assert all(value >= 0 for value in calibration)
        assert seconds > 0
    for folder in ("", "vanilla", "mixup", "logitmix"):
        picture = tmp_path / "demo_output" / folder / "reliability.png"
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
