"""Does LogitMix hold on an architecture? The checks behind test_architectures.py and docs/architectures.md.

cd tests; python -m helpers.architectures        writes docs/architectures.md
"""

from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from helpers.levels import columns, verdicts
from helpers.tiny_models import EOS, PAD, VOCABULARY, tiny_model
from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.losses import logitmix_loss, mixed_cross_entropy
from hf_logitmix.mixing import Linear
from hf_logitmix.training.rehearsal import rehearse

MODEL_TYPES = sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
NEEDS_OTHER_PACKAGES = {"layoutlmv2": "needs detectron2, which no registry ships as a wheel"}
BATCH, LENGTH = 6, 16
LENGTHS = (16, 11, 13, 16, 9, 13)
TOLERANCE = 2e-3  # of the spread of the logits
PAIRS = MixPlan(torch.tensor([1, 0, 3, 2, 5, 4]), torch.tensor([0.2, 0.8, 0.35, 0.65, 0.9, 0.1]))


def _ids(high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(high))


_CORNERS = _ids(400, BATCH, LENGTH, 2)
_BOXES = {"bbox": torch.cat([_CORNERS, _CORNERS + _ids(90, BATCH, LENGTH, 2)], -1)}
# What examples say of their tokens beside ids and token types, on which the levels are tried once more.
BESIDE: dict[str, tuple[str, dict[str, Tensor]]] = {
    "layoutlm": ("with boxes", _BOXES),
    "layoutlmv3": ("with boxes", _BOXES),
    "lilt": ("with boxes", _BOXES),
    "longformer": ("with global attention of its own", {"global_attention_mask": _ids(2, BATCH, LENGTH)}),
    "luke": (
        "with entities",
        {
            "entity_ids": _ids(16, BATCH, 3),
            "entity_attention_mask": torch.ones(BATCH, 3, dtype=torch.long),
            "entity_token_type_ids": torch.zeros(BATCH, 3, dtype=torch.long),
            "entity_position_ids": _ids(15, BATCH, 3, 4),
        },
    ),
    "markuplm": (
        "with tags",
        {"xpath_tags_seq": _ids(10, BATCH, LENGTH, 4), "xpath_subs_seq": _ids(9, BATCH, LENGTH, 4)},
    ),
    "roc_bert": (
        "with shapes and pronunciation",
        {"input_shape_ids": _ids(32, BATCH, LENGTH), "input_pronunciation_ids": _ids(31, BATCH, LENGTH)},
    ),
    "tapas": (
        "with cells of a table",
        {"token_type_ids": torch.stack([_ids(high, BATCH, LENGTH) for high in (3, 16, 15, 2, 14, 13, 10)], -1)},
    ),
}


class Unsupported(Exception):
    """The property cannot be asked of this architecture; the text says why."""


def inputs_of(
    model: PreTrainedModel, lengths: tuple[int, ...] = (LENGTH,) * BATCH, left: bool = False
) -> dict[str, Tensor]:
    """Random ids, one end-of-text token at the end of each row, and random token types where the model has them."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 100, (BATCH, LENGTH), generator=generator)
    types = torch.randint(0, 2, (BATCH, LENGTH), generator=generator)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        used = slice(LENGTH - length, None) if left else slice(0, length)
        mask[row, used] = 1
        ids[row, LENGTH - 1 if left else length - 1] = EOS
    ids = torch.where(mask.bool(), ids, PAD)
    inputs = {model.main_input_name: ids, "attention_mask": mask}
    if any(name.endswith("token_type_embeddings") for name, _ in model.named_modules()):
        inputs["token_type_ids"] = types * mask
    return inputs


@torch.no_grad()
def with_padding_in_use(model: PreTrainedModel) -> PreTrainedModel:
    """Give padding a vector of its own, as models have that were trained."""
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == VOCABULARY:
            generator = torch.Generator().manual_seed(PAD)
            module.weight[PAD] = 0.7 * torch.randn(module.weight.shape[1], generator=generator)
    return model


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of how much the logits of different examples differ."""
    return ((a - b).abs().max() / b.std(0).max().clamp_min(1e-3)).item()


def constant(lam: float) -> MixPlan:
    return MixPlan(PAIRS.partner, torch.full((BATCH,), lam))


@torch.no_grad()
def semantic_gaps(model: PreTrainedModel) -> dict[str, float]:
    """How far each property is from exact."""
    equal, clean = inputs_of(model), model(**inputs_of(model)).logits
    gaps = {}
    for rows in ("both", "mixed"):
        mixed = mixed_forward(model, equal, PAIRS, rows=rows).mixed_logits
        gaps[f"lam = 1, {rows}"] = gap(mixed_forward(model, equal, constant(1.0), rows=rows).mixed_logits, clean)
        gaps[f"lam = 0, {rows}"] = gap(
            mixed_forward(model, equal, constant(0.0), rows=rows).mixed_logits, clean[PAIRS.partner]
        )
        gaps[f"symmetric, {rows}"] = gap(mixed, mixed[PAIRS.partner])
    gaps["clean half"] = gap(mixed_forward(model, equal, PAIRS).logits, clean)
    for side, left in (("right", False), ("left", True)):
        padded = inputs_of(model, LENGTHS, left)
        both = mixed_forward(model, padded, PAIRS)
        gaps[f"clean half, padded {side}"] = gap(both.logits, model(**padded).logits)
        gaps[f"symmetric, padded {side}"] = gap(both.mixed_logits, both.mixed_logits[PAIRS.partner])
        alone = mixed_forward(model, padded, PAIRS, rows="mixed").mixed_logits
        gaps[f"rows mixed, padded {side}"] = gap(alone, both.mixed_logits)
    return gaps


@torch.no_grad()
def masks_of(model_type: str) -> str:
    """How masks of unequal lengths meet: softly, with padding on both sides or on one, or as their union."""
    model = with_padding_in_use(tiny_model(model_type))
    way, exact = rehearse(model, inputs_of(model), Linear()).masks, []
    if way == "union":
        return way
    for side, left in (("right", False), ("left", True)):
        padded = inputs_of(model, LENGTHS, left)
        clean, off = model(**padded).logits, []
        for lam, expected in ((1.0, clean), (0.0, clean[PAIRS.partner])):
            for rows in ("both", "mixed"):
                output = mixed_forward(model, padded, constant(lam), mixing=Linear(masks="soft"), rows=rows)
                off.append(gap(output.mixed_logits, expected))
            if not gap(mixed_forward(model, padded, PAIRS, mixing=Linear(masks="soft")).logits, clean) < TOLERANCE:
                raise AssertionError(f"{model_type}: soft masks change the clean rows, padded {side}")
        exact += [side] if max(off) < TOLERANCE else []
    if not exact:
        raise AssertionError(f"{model_type}: soft masks hold on neither side")
    return "soft" if len(exact) == 2 else f"soft, exact padded {exact[0]}"


@torch.no_grad()
def truth_gap(model: PreTrainedModel) -> float:
    """Against a copy of the model whose embedding table holds every mixed vector as a token of its own.

    Raises:
        Unsupported: where the ids are not rows of one table, or a row has no logits of its own.
    """
    try:
        table = model.get_input_embeddings().weight
    except (NotImplementedError, AttributeError) as error:
        raise Unsupported("no embedding table") from error
    if model.config.model_type == "ibert":
        raise Unsupported("its embedding table cannot grow")
    # Encoder-decoders look for the end-of-text id, which a mixed vector of two different tokens cannot have.
    lengths = (LENGTH,) * BATCH if model.config.is_encoder_decoder else LENGTHS
    inputs = inputs_of(model, lengths)
    inputs.pop("token_type_ids", None)
    ids, mask = inputs[model.main_input_name], inputs["attention_mask"]
    alone = [model(**{name: value[i : i + 1] for name, value in inputs.items()}).logits[0] for i in range(BATCH)]
    if not gap(torch.stack(alone), model(**inputs).logits) < TOLERANCE:
        raise Unsupported("a padded row has other logits alone than in its batch")
    expected = []
    for i, (j, lam) in enumerate(zip(PAIRS.partner.tolist(), PAIRS.lam.tolist(), strict=True)):
        grown = copy.deepcopy(model)
        grown.resize_token_embeddings(VOCABULARY + LENGTH, mean_resizing=False)
        if any(isinstance(m, nn.Embedding) and m.num_embeddings == VOCABULARY for m in grown.modules()):
            raise Unsupported("has more than one embedding table")
        grown.get_input_embeddings().weight[VOCABULARY:] = lam * table[ids[i]] + (1 - lam) * table[ids[j]]
        longer = i if lengths[i] >= lengths[j] else j
        new = torch.where(ids[longer] == PAD, PAD, VOCABULARY + torch.arange(LENGTH))
        new = torch.where((ids[i] == ids[j]) & (ids[i] == EOS), EOS, new)
        union = torch.maximum(mask[i], mask[j])
        expected.append(grown(**{model.main_input_name: new[None], "attention_mask": union[None]}).logits[0])
    return gap(mixed_forward(model, inputs, PAIRS).mixed_logits, torch.stack(expected))


def gradients_flow(model: PreTrainedModel) -> None:
    """LogitMix and Mixup run backward, with finite gradients."""
    model.train()
    labels = torch.arange(BATCH) % 3
    for rows in ("both", "mixed"):
        model.zero_grad()
        output = mixed_forward(model, inputs_of(model, LENGTHS), PAIRS, rows=rows)
        if rows == "both":
            logitmix_loss(output.logits, output.mixed_logits, labels, PAIRS).total.backward()
        else:
            mixed_cross_entropy(output.mixed_logits, labels, PAIRS).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert grads
        assert all(torch.isfinite(grad).all() for grad in grads)
    model.eval()


@torch.no_grad()
def levels_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> str:
    return columns(verdicts(model, inputs, model(**inputs).logits))


def row_of(model_type: str) -> str:
    """A row of the table in the docs; anything that must hold and does not raises."""
    if model_type in NEEDS_OTHER_PACKAGES:
        return f"| {model_type} | not tried: {NEEDS_OTHER_PACKAGES[model_type]} | | | |"
    model = tiny_model(model_type)
    gaps = semantic_gaps(model)
    worst = max(gaps, key=lambda name: gaps[name])
    if not gaps[worst] < TOLERANCE:
        raise AssertionError(f"{model_type}: {worst} is off by {gaps[worst]:.2g}")
    found = f"{levels_of(model, inputs_of(model))} | {masks_of(model_type)}"
    gradients_flow(model)
    try:
        truth = truth_gap(model)
    except Unsupported as reason:
        return f"| {model_type} | {found} | not compared: {reason} |"
    if not truth < TOLERANCE:
        raise AssertionError(f"{model_type}: off by {truth:.2g} from a model that holds the mixed vectors as tokens")
    return f"| {model_type} | {found} | equal |"


def row_beside(model_type: str) -> str:
    """A row of the second table."""
    what, inputs = BESIDE[model_type]
    model = tiny_model(model_type)
    return f"| {model_type} {what} | {levels_of(model, {**inputs_of(model), **inputs})} |"


INTRODUCTION = """# Architectures

Written by `python -m helpers.architectures` in tests/ with transformers {version}: {tried} of the {known}
sequence-classification architectures were built small and random and tried, and on all of them LogitMix and Mixup train
at the embedding, where every property holds: the clean half is a plain forward; lam = 1 gives an example's own logits
and lam = 0 its partner's; a pair is symmetric, with token types and with unequal lengths padded on the right or left;
one forward over mixed rows alone gives the same as one over clean and mixed rows.

Masks of sentences of unequal length meet as the column `masks` says ([below](#sentences-of-unequal-length)): softly,
which gives each row's own logits at lam = 1 and 0, whichever side is padded or on the side that is named; or as their
union.

On {compared} of them the mixed rows were also compared with an independent truth: a copy of the model that holds every
mixed vector as a token of its own in its embedding table (sentences of unequal length under the union of their masks;
of equal length for encoder-decoders, which look for the end-of-text id).

Every level of these models (two layers, in most) was tried, with `rows="both"` and `rows="mixed"`: rows mixed with
lam = 1 must have their own logits, with lam = 0 their partner's, and the clean rows those of a plain forward. Where
that does not hold, the rehearsal before training refuses the level. Architectures without `hidden:k` have no one list
of layers. At a level that is called linear the logits of what is mixed are the mixed logits by themselves, so that the
similarity of LogitMix is zero there; MixTrainer warns.

| architecture | levels that hold | levels that do not | masks | truth |
| --- | --- | --- | --- | --- |
"""
BESIDE_INTRODUCTION = """
## More than words

Some models read more of an example than ids and token types. Boxes, tags, shapes and pronunciation are mixed along with
the words; all else is the longer example's own, and where it reaches the logits past a level, that level is refused.

| architecture | levels that hold | levels that do not |
| --- | --- | --- |
"""

UNEQUAL_INTRODUCTION = """
## Sentences of unequal length

How far lam = 1 is from the own logits of the shorter of two texts, as a share of the mean distance between the logits
of two texts: median, and largest. Measured by `python benchmarks/unequal_lengths.py` on small random models of these
architectures (padding has a vector of its own) and on {sentences} rows of real sentences of SST-2 and MRPC,
all-MiniLM-L6-v2 with a new head; the record, with a figure for each architecture, is
[benchmarks/unequal_lengths.json](../benchmarks/unequal_lengths.json).

| models | padding | length of the shorter | union | soft |
| --- | --- | --- | --- | --- |
"""
UNEQUAL_REST = """
Soft masks need a model that takes a mask of numbers and adds it to the scores of attention. These take the union, and
the log says so: models that multiply or count by the mask (DeBERTa, ESM, XLNet), that count positions from it (OPT),
whose layers look through windows (ModernBERT, Mistral, Gemma 3) or are no attention (Jamba, Qwen3-Next), and any model
under an attention implementation other than `sdpa` and `eager`. Encoders that count positions from ids (RoBERTa) are
exact padded on the right. Decoders and encoder-decoders, which read a text off its last token, are so padded on the
left. Padded on the other side both ways are off by about as much as two texts differ.
"""


def unequal_table(record: dict[str, Any]) -> str:
    """Rows of the table of unequal lengths, from the record."""

    def cell(found: list[dict[str, Any]], side: str, way: str, share: str) -> str:
        values = [one[side][way][share] for one in found if way in one[side]]
        return f"{statistics.median(values):.2f}, {max(values):.2f}" if values else ""

    models = record["architectures"].values()
    lines = []
    for way in ("soft", "union"):
        found = [one for one in models if one["masks"] == way]
        for side in ("right", "left"):
            is_exact = [one for one in found if way == "soft" and max(one[side]["soft"].values()) < TOLERANCE]
            kinds = {"soft, exact": is_exact, "soft": [one for one in found if one not in is_exact]}
            for kind, members in (kinds if way == "soft" else {"union": found}).items():
                lines += [
                    f"| {len(members)}: {kind} | {side} | {share} | "
                    f"{cell(members, side, 'union', share)} | {cell(members, side, 'soft', share)} |"
                    for share in members[0][side]["union"]
                ]
    for name, found in (record["sentences"] or {}).items():
        cells = " | ".join(f"{found[way][1]:.2f}, upper quartile {found[way][2]:.2f}" for way in ("union", "soft"))
        lines.append(f"| MiniLM, {name} | right | as they come | {cells} |")
    return "\n".join(lines) + "\n"


def unequal_section() -> str:
    record = json.loads((Path(__file__).parents[2] / "benchmarks" / "unequal_lengths.json").read_text())
    count = sum(found["rows"] for found in (record["sentences"] or {}).values())
    return UNEQUAL_INTRODUCTION.format(sentences=count) + unequal_table(record) + UNEQUAL_REST


def main() -> int:
    """Try every architecture and write the table."""
    rows = [row_of(model_type) for model_type in tqdm(MODEL_TYPES, desc="architectures")]
    tried = [row for row in rows if "not tried" not in row]
    compared = [row for row in rows if row.endswith("| equal |")]
    text = INTRODUCTION.format(
        version=transformers.__version__, tried=len(tried), known=len(rows), compared=len(compared)
    )
    text += "\n".join(rows) + "\n" + BESIDE_INTRODUCTION + "\n".join(map(row_beside, BESIDE)) + "\n" + unequal_section()
    path = Path(__file__).parents[2] / "docs" / "architectures.md"
    path.write_text(text)
    print(f"{len(tried)} of {len(rows)} architectures; written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
