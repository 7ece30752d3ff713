"""A synthetic corpus of opinions in GLUE format, from a small grammar. It shows how things work, not how well.

A sentence holds one or two clauses of the form *subject verb [not] [modifier] adjective*. Every adjective has a
strength between -2 and 2; a modifier scales it, "not" turns and weakens it, and after "but" the second clause counts
most. The label is drawn with the probability sigmoid(SHARPNESS x strength of the sentence), so that weak opinions
overlap, and some labels are turned over. No model can be right about those, and one that learns them by heart is
over-confident.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

SUBJECTS = ("the soup", "the service", "our room", "the film", "this phone", "the plot", "the staff", "the sound")
VERBS = ("is", "was", "seems", "feels")
ADJECTIVES = {
    **{"superb": 2.0, "delightful": 1.8, "charming": 1.5, "pleasant": 1.1, "good": 1.0, "solid": 0.8, "decent": 0.5},
    **{"fine": 0.4, "odd": -0.4, "slow": -0.5, "bland": -0.8, "bad": -1.0, "tedious": -1.2, "broken": -1.5},
    **{"awful": -1.8, "dreadful": -2.0},
}
MODIFIERS = {"": 1.0, "very": 1.5, "rather": 0.8, "slightly": 0.4, "surprisingly": 1.2}
JOINS = {"and": (1.0, 1.0), "but": (0.3, 1.2), "although": (1.2, 0.3)}
OPENERS = ("", "i think", "honestly ,", "critics agree that")

NOT_WEAKENS = -0.7
SHARPNESS = 4.0
TURNED_OVER = 0.1


def clause(rng: random.Random) -> tuple[str, float]:
    """One clause and its strength."""
    adjective, modifier = rng.choice(list(ADJECTIVES)), rng.choice(list(MODIFIERS))
    strength = ADJECTIVES[adjective] * MODIFIERS[modifier]
    negated = rng.random() < 0.3
    words = [rng.choice(SUBJECTS), rng.choice(VERBS), "not" if negated else "", modifier, adjective]
    return " ".join(word for word in words if word), strength * (NOT_WEAKENS if negated else 1.0)


def example(rng: random.Random) -> tuple[str, int]:
    """One sentence and its label, 1 for praise."""
    first, strength = clause(rng)
    text = f"{rng.choice(OPENERS)} {first}".strip()
    if rng.random() < 0.6:
        join = rng.choice(list(JOINS))
        second, other = clause(rng)
        text = f"{text} {join} {second}"
        strength = JOINS[join][0] * strength + JOINS[join][1] * other
    praise = rng.random() < 1 / (1 + math.exp(-SHARPNESS * strength))
    turned = rng.random() < TURNED_OVER
    return f"{text} .", int(praise != turned)


def write_corpus(folder: Path, sizes: dict[str, int], seed: int = 0) -> list[str]:
    """Write one TSV file a split, with the header ``sentence, label``; no sentence is in two splits.

    Args:
        folder: is made if it is not there.
        sizes: file name without ending -> number of examples, such as {"train": 2000, "dev": 1000}.
        seed: of the grammar.

    Returns:
        the sentences of the first split, for a tokenizer.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    first: list[str] = []
    for split, size in sizes.items():
        rows: list[tuple[str, int]] = []
        while len(rows) < size:
            text, label = example(rng)
            if text not in seen:
                seen.add(text)
                rows.append((text, label))
        lines = "".join(f"{text}\t{label}\n" for text, label in rows)
        (folder / f"{split}.tsv").write_text(f"sentence\tlabel\n{lines}", encoding="utf-8")
        first = first or [text for text, _ in rows]
    return first
