"""Layers below the mix run on the clean rows alone, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, PreTrainedConfig

from helpers import image_architectures as image_models
from helpers.architectures import LENGTHS, MODEL_TYPES, NEEDS_OTHER_PACKAGES, PAIRS, inputs_of
from helpers.data import batch_of, examples
from helpers.models import tiny_bert, tiny_resnet
from helpers.tiny_models import tiny_model
from helpers.training import arguments
from helpers.training import weights as weights_of
from hf_logitmix import MixTrainer, get_method, mixed_forward
from hf_logitmix.mixing import Linear
from hf_logitmix.modalities import modality_of
from hf_logitmix.modalities.hooks import attached
from hf_logitmix.modalities.layers import layers_of, levels
from hf_logitmix.training.rehearsal import rehearse

QUICK = ("bert", "deberta-v2", "gpt2", "llama", "longformer", "zamba2")
QUICK_IMAGES = ("ViTForImageClassification", "ResNetForImageClassification", "PvtForImageClassification")
NO_LEVEL = ("no hook at level", "pools before its head", "token embedding to mix at", "model.train()")
# of texts that are padded where they begin, in whichever way they are mixed
NO_GRADIENT = ("canine", "gemma2", "longformer", "mpt")
ALL_ROWS = {  # what cannot be given a part of its rows, or other rows than come out; the rehearsal finds it out
    "bloom": ("hidden:1", "hidden:2"),
    **dict.fromkeys(("modernbert-decoder", "t5gemma", "t5gemma2"), ("pooled",)),
    **dict.fromkeys(("DeiTForImageClassificationWithTeacher", "LevitForImageClassificationWithTeacher"), ("pooled",)),
    "PvtForImageClassification": ("hidden:1", "hidden:2", "hidden:3"),
    "PvtV2ForImageClassification": ("hidden:1", "hidden:2", "hidden:3", "hidden:4"),
}


def slow_but(quick, names):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def in_double(model, inputs):
    """The model in double precision, or, where a part of it knows none, as it is."""
    double = copy.deepcopy(model).double()
    floats = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    try:
        with torch.no_grad():
            double(**floats)
    except RuntimeError:
        return model, inputs
    return double, floats


def outcome(model, inputs, plan, level, rows, has_gradients=True):
    """Logits, mixed logits and the gradients of all parameters."""
    model.zero_grad()
    with torch.set_grad_enabled(has_gradients):
        output = mixed_forward(model, inputs, plan, mixing=Linear(level=level), rows=rows)
    logits = [part for part in (output.logits, output.mixed_logits) if part is not None]
    if not has_gradients:
        return logits
    sum((part.double() ** 2).sum() for part in logits).backward()
    return [*logits, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])]


EVERY = (("both", 1), ("mixed", 1), ("both", 3), ("mixed", 3))  # kinds of rows, and the share 1 / of the batch


def check_levels(name, model, batches, plan, kinds=EVERY, has_gradients=True, off=1e-6):
    """At every level, for both kinds of rows and a plan of the batch or of a part of it; those that end in an error."""
    where, refused = layers_of(model), set()
    with attached(model) as hooks:
        for level in [*levels(where)[1:], *(["pooled"] if where.head else [])]:
            for rows, part in kinds:
                count = -(-len(plan.lam) // part)
                for inputs in batches:
                    hooks.fixed = None
                    try:
                        expected = outcome(model, inputs, plan.first(count), level, rows, has_gradients)
                    except (RuntimeError, ValueError, AssertionError) as error:
                        if not any(text in str(error) for text in NO_LEVEL):
                            raise
                        continue
                    try:
                        modality_of(model).share_layers(model, inputs)
                        found = outcome(model, inputs, plan.first(count), level, rows, has_gradients)
                    except (RuntimeError, ValueError, IndexError):
                        refused.add(level)
                        continue
                    for a, b in zip(found, expected, strict=True):
                        known = ~b.isnan()
                        assert known.all() or name in NO_GRADIENT
                        most = off * b.nan_to_num().abs().max().item()
                        if level in ALL_ROWS.get(name, ()) and ((a[known] - b[known]).abs() > most).any():
                            refused.add(level)
                            continue
                        torch.testing.assert_close(a[known], b[known], rtol=0, atol=most)
    return refused


@pytest.mark.parametrize("model_type", slow_but(QUICK, [n for n in MODEL_TYPES if n not in NEEDS_OTHER_PACKAGES]))
def test_logits_and_gradients_of_text_are_those_of_all_rows_in_all_layers(model_type):
    plain = tiny_model(model_type).eval()
    batches = [in_double(plain, inputs_of(plain, LENGTHS, left)) for left in (False, True)]
    refused = check_levels(model_type, batches[0][0], [inputs for _, inputs in batches], PAIRS)
    assert refused == {*ALL_ROWS.get(model_type, ())}


@pytest.mark.parametrize(
    "name",
    slow_but(
        QUICK_IMAGES, [n for n in image_models.CLASSES if n not in {*image_models.NOT_TRIED, *image_models.REFUSED}]
    ),
)
def test_logits_and_gradients_of_images_are_those_of_all_rows_in_all_layers(name):
    plain = image_models.tiny_model(name)
    inputs = image_models.inputs_of(plain, image_models.SIZES.get(name, 32))
    image_models.settle(plain, inputs)
    model, inputs = in_double(plain, inputs)
    if modality_of(model).name == "images":
        refused = check_levels(name, model, [inputs], image_models.PLAN, (("both", 1), ("mixed", 3)))
        assert refused == {*ALL_ROWS.get(name, ())}


@pytest.mark.slow
@pytest.mark.parametrize("module", image_models.TIMM)
def test_logits_of_timm_are_those_of_all_rows_in_all_layers(module):
    """Or an error that the rehearsal sees; in single precision, without gradients, as in double some take minutes."""
    pytest.importorskip("timm")
    model, size = image_models.timm_model(module), image_models.TIMM[module][1]
    inputs = image_models.inputs_of(model, size)
    image_models.settle(model, inputs)
    kinds = (("both", 1), ("mixed", 3))
    check_levels(module, model, [inputs], image_models.PLAN, kinds, has_gradients=False, off=1e-4)


def test_layers_below_see_the_clean_rows_and_layers_above_what_is_asked_for():
    model, inputs = tiny_bert(), batch_of(examples(6))  # of three layers
    seen = []
    for layer in layers_of(model).hidden:
        layer.attention.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with attached(model):
        rehearse(model, inputs, Linear(level="manifold"))
        for level, rows, count, expected in (
            ("hidden:2", "both", 6, [6, 6, 12]),
            ("hidden:1", "both", 2, [6, 8, 8]),
            ("hidden:1", "mixed", 6, [6, 6, 6]),
            ("hidden:3", "mixed", 6, [6, 6, 6]),
            ("pooled", "both", 6, [6, 6, 6]),
        ):
            seen.clear()
            mixed_forward(model, inputs, PAIRS.first(count), mixing=Linear(level=level), rows=rows)
            assert seen == expected, level
    seen.clear()
    mixed_forward(model, inputs, PAIRS, mixing=Linear(level="hidden:2"))  # never rehearsed: the hooks are new
    assert seen == [12, 12, 12]


def test_a_table_as_long_as_the_batch_is_not_cut():
    """DeBERTa gives each layer its table of relative positions, which here has B + M rows too."""
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        relative_attention=True, max_relative_positions=6, pos_att_type=["p2c", "c2p"], initializer_range=0.3,
        num_labels=3, pad_token_id=1,
    )  # fmt: skip
    model = DebertaV2ForSequenceClassification(config).double().eval()
    assert len(model.deberta.encoder.rel_embeddings.weight) == 12 == 2 * len(PAIRS.lam)
    assert not check_levels("deberta-v2", model, [inputs_of(model, LENGTHS)], PAIRS)


class TakesBatches(nn.Module):
    """A model of images whose head knows how many came in."""

    main_input_name = "pixel_values"

    def __init__(self, adds=False):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)]), nn.Linear(12, 3)
        self.adds, self.config = adds, PreTrainedConfig(num_labels=3)

    def forward(self, pixel_values):
        hidden = self.layers[1](self.layers[0](pixel_values.flatten(1)).tanh()).tanh()
        if self.adds:
            return self.head(hidden) + (len(hidden) - len(pixel_values))
        return self.head(hidden.reshape(len(pixel_values), -1))


@pytest.mark.parametrize(("adds", "reason"), [(False, "shapes cannot be multiplied"), (True, "its logits would be")])
def test_one_line_of_the_log_says_why_all_rows_run(adds, reason, caplog):
    model = TakesBatches(adds)
    inputs = {"pixel_values": torch.randn(4, 3, 2, 2)}
    with attached(model) as hooks:
        expected = mixed_forward(model, inputs, PAIRS.first(2), mixing=Linear(level="hidden:1")).logits
        rehearse(model, inputs, Linear(level="manifold"))
        rehearse(model, inputs, Linear(level="hidden:1"), "mixed")
        assert hooks.needs_all_rows
        found = mixed_forward(model, inputs, PAIRS.first(2), mixing=Linear(level="hidden:1")).logits
    assert len(caplog.records) == 1
    assert reason in caplog.text
    torch.testing.assert_close(found, expected)


def test_a_batch_norm_below_sees_the_clean_images_alone():
    model = tiny_resnet().train()
    pixels = torch.randn(8, 3, 16, 16)
    plain, below = copy.deepcopy(model), "resnet.embedder.embedder.normalization.running_var"
    plain(pixels)
    with attached(model):
        rehearse(model, {"pixel_values": pixels}, Linear(level="hidden:1"))
        mixed_forward(model, {"pixel_values": pixels}, PAIRS.first(4), mixing=Linear(level="hidden:1"))
    torch.testing.assert_close(model.state_dict()[below], plain.state_dict()[below])


def of_lora():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False)
    torch.manual_seed(0)
    return peft.get_peft_model(tiny_bert(), config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "options", "rounding"),
    [
        (tiny_bert, {"gradient_accumulation_steps": 2}, 1e-5),
        (tiny_bert, {"torch_compile": True, "torch_compile_backend": "eager"}, 1e-5),
        (tiny_bert, {"bf16": True}, 1e-2),
        (of_lora, {}, 1e-5),
    ],
    ids=["accumulated", "compiled", "bf16", "lora"],
)
@pytest.mark.parametrize("method", ["logitmix", "mixup"])
def test_a_run_is_as_with_all_rows(tmp_path, method, make, options, rounding):
    """Weights after some steps without dropout: layers shared, and with hooks that are told that they cannot be."""
    weights = []
    for shares in (True, False):
        model, start = make(), weights_of(make())
        mixing = {"level": "hidden:2", **({"mix_fraction": 0.5} if method == "logitmix" else {})}
        args = arguments(tmp_path / str(shares), max_steps=3, **options)
        method_of_run = get_method(method, **mixing)
        trainer = MixTrainer(model=model, args=args, method=method_of_run, train_dataset=examples(24))
        with attached(model) as hooks:
            hooks.needs_all_rows = not shares
            trainer.train()
            assert (hooks.fixed is not None) == shares
        weights.append(weights_of(model))
    moved = (weights[1] - start).abs().max().item()
    torch.testing.assert_close(*weights, rtol=0, atol=rounding * moved + 1e-6)
