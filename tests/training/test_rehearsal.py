"""The rehearsal on two rows before training: hand-made models whose fault is known, and models that are right."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import BertForSequenceClassification, HfArgumentParser, PreTrainedConfig

from helpers.architectures import LENGTHS, inputs_of
from helpers.data import batch_of, examples, random_images
from helpers.faulty import Shortcut, Trained, pictures
from helpers.models import tiny_bert, tiny_resnet, tiny_vit
from helpers.tiny_models import tiny_model
from helpers.training import arguments, weights
from hf_logitmix import MixPlan, MixTrainer, MixTrainingArguments, get_method, mixed_forward
from hf_logitmix.mixing import CutMix, Linear, PuzzleMix
from hf_logitmix.training.rehearsal import rehearse
from hf_logitmix.training.two_rows import equally_long

IMAGES = {"pixel_values": torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
LABELS = torch.tensor([0, 1, 2, 1, 0])


class BesideTheEmbedding(BertForSequenceClassification):
    """Its first layer reads the ids by itself, too."""

    def __init__(self, config):
        super().__init__(config)
        self.table = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size))
        embeddings, table = self.bert.embeddings.forward, self.table
        self.bert.embeddings.forward = lambda input_ids=None, **rest: embeddings(input_ids, **rest) + table[input_ids]


class BesideTheModel(BertForSequenceClassification):
    """Its logits read the ids by themselves, too."""

    def __init__(self, config):
        super().__init__(config)
        self.table = nn.Parameter(torch.randn(config.vocab_size, config.num_labels))

    def forward(self, input_ids=None, **inputs):
        output = super().forward(input_ids, **inputs)
        output.logits = output.logits + self.table[input_ids].mean(1)
        return output


class Parcel:
    def __init__(self, hidden):
        self.hidden = hidden


class Packs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, hidden):
        return Parcel(self.linear(hidden.hidden if isinstance(hidden, Parcel) else hidden).tanh())


class Packed(nn.Module):
    """Its layers put out what nobody can look into."""

    main_input_name = "pixel_values"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.layers, self.head = nn.Linear(192, 16), nn.ModuleList([Packs(), Packs()]), nn.Linear(16, 3)
        self.config = PreTrainedConfig(num_labels=3)

    def forward(self, pixel_values):
        hidden = self.stem(pixel_values.flatten(1))
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden.hidden)


class OfTheWholeBatch(nn.Module):
    """Normalises by the statistics of the batch in evaluation, too."""

    main_input_name = "pixel_values"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)
        self.head = nn.Linear(192, 3)
        self.config = PreTrainedConfig(num_labels=3)

    def forward(self, pixel_values):
        return self.head(self.norm(pixel_values).flatten(1))


class LooksAcross(Shortcut):
    """Of four rows the first two see the last two."""

    def forward(self, pixel_values):
        beside = pixel_values.clone()
        if len(pixel_values) == 4:
            beside[:2] = pixel_values[2:]
        return self.head(self.layers[0]((pixel_values + beside).flatten(1)).tanh())


def bert(kind):
    torch.manual_seed(0)
    return kind(tiny_bert().config)


TEXT = batch_of(examples(6))


@pytest.mark.parametrize("rows", ["both", "mixed"])
@pytest.mark.parametrize(
    ("model", "inputs", "mixing", "message"),
    [
        (Shortcut(), IMAGES, Linear(level="hidden:2"), r"Shortcut .*level='hidden:2'.*pass level='embedding'"),
        (Shortcut(0.05), IMAGES, Linear(level="hidden:3"), r"Shortcut .*level='hidden:3'.*pass level='embedding'"),
        (Shortcut(), IMAGES, Linear(level="manifold"), r"'hidden:2', which level='manifold' draws.*level='embedding'"),
        (Packed(), IMAGES, Linear(level="hidden:1"), r"Packed .*level='hidden:1'.*pass level='embedding'"),
        (bert(BesideTheEmbedding), TEXT, Linear(), r"BesideTheEmbedding .*level='embedding'.*pass level='hidden:1'"),
        (bert(BesideTheModel), TEXT, Linear(), r"BesideTheModel .*level='embedding'.*nothing else works"),
        (OfTheWholeBatch(), IMAGES, CutMix(), r"OfTheWholeBatch .*by CutMix.*nothing else works"),
    ],
)
def test_what_mixes_a_part_is_refused(model, inputs, mixing, message, rows):
    with pytest.raises(ValueError, match=message) as error:
        mixed_forward(model, inputs, MixPlan(torch.arange(5), torch.ones(5)), mixing=mixing, rows=rows, rehearse=True)
    assert len(str(error.value).splitlines()) == 1


def test_clean_rows_that_change_are_refused():
    with pytest.raises(ValueError, match=r"LooksAcross .*clean rows are not what a plain forward gives"):
        rehearse(LooksAcross(), IMAGES, Linear(), "both")
    rehearse(LooksAcross(), IMAGES, Linear(), "mixed")


@pytest.mark.filterwarnings("ignore:.*linear head")
@pytest.mark.parametrize("rows", ["both", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("model", "inputs", "mixing"),
    [
        (tiny_bert(), TEXT, Linear(level="manifold")),
        (tiny_bert(), TEXT, Linear(level="pooled")),
        (Shortcut(0.0), IMAGES, Linear(level="manifold")),
        (Shortcut(), IMAGES, Linear(level="hidden:1")),
        (tiny_resnet(), IMAGES, Linear(level="manifold")),
        (tiny_resnet(), IMAGES, CutMix()),
        (tiny_resnet(), IMAGES, PuzzleMix(block_num=4)),
    ],
)
def test_what_is_right_passes(model, inputs, mixing, dtype, rows):
    model = copy.deepcopy(model).to(dtype)
    inputs = {name: v.to(dtype) if v.is_floating_point() else v for name, v in inputs.items()}
    rehearse(model, inputs, mixing, rows, torch.arange(len(next(iter(inputs.values())))) % 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_is_zero_hides_nothing(dtype):
    model = Shortcut().to(dtype)
    nn.init.zeros_(model.head.weight)
    with pytest.raises(ValueError, match=r"level='hidden:2'"):
        rehearse(model, {"pixel_values": IMAGES["pixel_values"].to(dtype)}, Linear(level="hidden:2"))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("model_type", ["bert", "gpt2", "bart", "t5", "xlnet", "mra", "roberta"])
def test_sentences_of_unequal_length_are_no_fault(model_type, left):
    model = tiny_model(model_type)
    rehearse(model, inputs_of(model, LENGTHS, left), Linear())
    without_mask = {k: v for k, v in inputs_of(model, LENGTHS, left).items() if k != "attention_mask"}
    rehearse(model, without_mask, Linear())


@pytest.mark.parametrize("left", [False, True])
def test_the_longer_row_loses_what_matters_least(left):
    """Row 0 has three tokens in six places; of row 1 the 7 that it begins with and both 2, which end a text, stay."""
    ids, mask = torch.tensor([[5, 6, 2, 1, 1, 1], [7, 8, 2, 9, 3, 2]]), torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6])
    places = torch.tensor([[0, 1, 2, 0, 0, 0], [0, 1, 2, 3, 4, 5]])
    expected_ids = torch.tensor([[5, 6, 2, 1, 1, 1], [7, 2, 2, 1, 1, 1]])
    if left:
        ids, mask, places, expected_ids = (t.clone() for t in (ids, mask, places, expected_ids))
        for tensor in (ids, mask, places, expected_ids):
            tensor[0] = tensor[0].roll(3)
        expected_ids[1] = expected_ids[1].roll(3)
    found = equally_long(
        {"input_ids": ids, "attention_mask": mask, "position_ids": places, "boxes": ids[..., None], "size": 2}, 1, 2
    )
    torch.testing.assert_close(found["input_ids"], expected_ids)
    torch.testing.assert_close(found["boxes"], expected_ids[..., None])
    torch.testing.assert_close(found["attention_mask"], mask[[0, 0]])
    torch.testing.assert_close(found["position_ids"], places[[0, 0]])
    assert found["size"] == 2
    assert ids[1].tolist() == [7, 8, 2, 9, 3, 2]


@pytest.mark.parametrize("inputs", [{"pixel_values": torch.ones(4, 3, 8, 8)}, {"pixel_values": torch.ones(1, 3, 8, 8)}])
def test_one_line_of_the_log_where_there_is_nothing_to_tell_apart(inputs, caplog):
    rehearse(Shortcut(), inputs, Linear(level="hidden:2"))
    assert re.findall(r"Shortcut.* cannot be tried", caplog.text)
    assert len(caplog.records) == 1


def test_rows_that_differ_are_found_in_a_batch_of_twins():
    pixels = IMAGES["pixel_values"][[0, 0, 0, 0, 1]]
    with pytest.raises(ValueError, match="hidden:2"):
        rehearse(Shortcut(), {"pixel_values": pixels}, Linear(level="hidden:2"))


def state_of(model):
    return {
        "tensors": {name: t.clone() for name, t in [*model.named_parameters(), *model.named_buffers()]},
        "modes": [module.training for module in model.modules()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "random": torch.get_rng_state(),
    }


@pytest.mark.parametrize(
    ("model", "inputs", "mixing"),
    [
        (tiny_bert(dropout=0.5), TEXT, Linear(level="manifold")),
        (tiny_resnet(), IMAGES, CutMix()),
        (tiny_resnet(), IMAGES, PuzzleMix()),
        (Shortcut(), IMAGES, Linear(level="hidden:2")),
    ],
)
def test_it_leaves_no_trace(model, inputs, mixing):
    model.train()
    next(model.children()).eval()
    next(model.parameters()).requires_grad_(False)
    before, given = state_of(model), {name: value.clone() for name, value in inputs.items()}
    try:
        rehearse(model, inputs, mixing, labels=torch.arange(len(next(iter(inputs.values())))) % 3)
    except ValueError:
        assert isinstance(model, Shortcut)
    after = state_of(model)
    assert after.pop("attributes") == before.pop("attributes")
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    torch.testing.assert_close(dict(inputs), given, rtol=0, atol=0)


def test_gradients_under_autocast_are_as_without():
    """Weights that were cast without gradients must not be found by the forward that trains."""
    found = []
    for first in (False, True):
        model = tiny_bert()
        with torch.autocast("cpu", torch.bfloat16):
            output = mixed_forward(model, TEXT, MixPlan(torch.arange(6).flip(0), torch.full((6,), 0.3)), rehearse=first)
            output.mixed_logits.float().square().sum().backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(grad is not None for name, grad in found[1].items() if found[0][name] is not None)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_it_costs_a_few_forwards_of_two_rows():
    model, seen = tiny_bert(), []

    def note(module, args, kwargs):
        assert not torch.is_grad_enabled()
        seen.append(len(kwargs["input_ids"]))

    model.register_forward_pre_hook(note, with_kwargs=True)
    rehearse(model, batch_of(examples(40)), Linear(), "mixed")
    assert seen == [8, 2, 4, 2, 2, 2]
    seen.clear()
    rehearse(model, batch_of(examples(3)), Linear(level="hidden:1"), "both")
    assert seen == [3, 2, 4, 4, 4, 4, 2, 4, 4, 2, 4]


# ---- LogitMix right before a linear head ---------------------------------------------------------------------------


def linear_levels(model, inputs, level, rows):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rehearse(model, inputs, Linear(level=level), rows)
    return [re.findall(r"level='(.*?)'", str(w.message))[0] for w in caught if "linear head" in str(w.message)]


def test_logitmix_before_a_bare_linear_head_warns():
    gpt, gpt2 = tiny_model("openai-gpt"), tiny_model("gpt2")
    inputs = inputs_of(gpt)
    with torch.no_grad():  # OpenAI's first GPT has no norm after its last layer
        hidden = gpt.transformer(**inputs).last_hidden_state
        of_mean = gpt.score((hidden[0] + hidden[1]) / 2)[-1]
        torch.testing.assert_close(of_mean, gpt(**inputs).logits[:2].mean(0))
    assert linear_levels(gpt, inputs, "hidden:2", "both") == ["hidden:2"]
    assert linear_levels(gpt, inputs, "manifold", "both") == ["hidden:2"]
    assert linear_levels(gpt, inputs, "hidden:1", "both") == []
    assert linear_levels(gpt, inputs, "hidden:2", "mixed") == []
    assert linear_levels(gpt2, inputs_of(gpt2), "manifold", "both") == []
    assert linear_levels(tiny_resnet(), IMAGES, "manifold", "both") == ["hidden:2"]


# ---- in MixTrainer -------------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        return iter(pictures())


@pytest.mark.parametrize("data", [pictures(), Stream()])
@pytest.mark.parametrize("name", ["logitmix", "mixup", "lamix", "manifold_mixup"])
def test_training_ends_before_anything_is_learned(tmp_path, name, data):
    method = get_method(name, level="manifold" if name == "manifold_mixup" else "hidden:2")
    model = Trained()
    before = weights(model)
    trainer = MixTrainer(model=model, args=arguments(tmp_path, max_steps=4), method=method, train_dataset=data)
    with pytest.raises(ValueError, match=r"Trained is not mixed right .*'hidden:2'.*pass level='embedding'"):
        trainer.train()
    assert trainer.state.global_step == 0
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("objective", ["logitmix", "mixup"])
def test_both_kinds_of_rows_are_tried_where_a_method_makes_both(tmp_path, objective, monkeypatch):
    tried = []
    monkeypatch.setattr(
        "hf_logitmix.training.rehearsing.rehearse", lambda model, inputs, mixing, rows, *labels: tried.append(rows)
    )
    options = {"warmup": "ramp"} if objective == "logitmix" else {}
    method = get_method(objective, **options)
    args = arguments(tmp_path, max_steps=3)
    MixTrainer(model=tiny_bert(), args=args, method=method, train_dataset=examples(12)).train()
    assert tried == (["both", "mixed"] if options else ["mixed"])


@pytest.mark.parametrize("method", ["mixup", "logitmix"])
@pytest.mark.parametrize(("level", "dropout", "rounding"), [("embedding", 0.3, 0.0), ("manifold", 0.0, 1e-5)])
def test_a_run_is_the_same_with_and_without(tmp_path, method, level, dropout, rounding):
    """Though the rehearsal runs the model many times; how masks meet is left to none.

    To the bit, with dropout, where no layer is below the mix; there the rehearsal lets a layer run on fewer rows.
    """
    results = []
    for number, rehearsed in enumerate((True, False)):
        model = tiny_bert(dropout=dropout)
        args = arguments(tmp_path / str(number), max_steps=3)
        options = {"rehearse": rehearsed, "train_dataset": examples(24)}
        MixTrainer(model=model, args=args, method=get_method(method, level=level, masks="soft"), **options).train()
        results.append(weights(model))
    torch.testing.assert_close(results[0], results[1], rtol=rounding, atol=rounding)


@pytest.mark.parametrize(
    ("of_args", "keyword", "is_refused"),
    [(None, None, True), (True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
def test_it_can_be_left_out(tmp_path, of_args, keyword, is_refused):
    options = {"max_steps": 1, "per_device_train_batch_size": 4}
    args = arguments(tmp_path, **options)
    if of_args is not None:
        args = MixTrainingArguments(str(tmp_path), **options, use_cpu=True, report_to="none", rehearse=of_args)
    method = get_method("mixup", level="hidden:2")
    trainer = MixTrainer(Trained(), args, method=method, train_dataset=pictures(), rehearse=keyword)
    if is_refused:
        with pytest.raises(ValueError, match="not mixed right"):
            trainer.train()
    else:
        assert trainer.train().global_step == 1


def test_the_command_line_leaves_it_out():
    parse = HfArgumentParser(MixTrainingArguments).parse_args_into_dataclasses
    assert parse(["--output_dir", "out"])[0].rehearse
    assert not parse(["--output_dir", "out", "--no_rehearse"])[0].rehearse


def test_a_model_that_is_cut_up_is_not_tried_and_the_log_says_so(tmp_path, caplog):
    trainer = MixTrainer(Trained(), arguments(tmp_path), method=get_method("mixup", level="hidden:2"))
    trainer.is_deepspeed_enabled = True
    trainer._rehearse(trainer.model, IMAGES, LABELS)
    assert "DeepSpeed" in caplog.text


def test_vit_trains_at_every_level(tmp_path):
    args = arguments(tmp_path, max_steps=1)
    MixTrainer(model=tiny_vit(), args=args, method="manifold_mixup", train_dataset=random_images(8)).train()
