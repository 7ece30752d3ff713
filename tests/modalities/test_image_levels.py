"""Images mixed at layers, and by PuzzleMix inside a model: against forwards that are put together by hand."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    default_data_collator,
)

from helpers.data import examples
from helpers.image_architectures import TIMM, timm_model
from helpers.models import tiny_bert, tiny_resnet, tiny_vit
from helpers.training import arguments, weights
from hf_logitmix import METHODS, MixPlan, MixTrainer, get_method, mixed_forward
from hf_logitmix.mixing import Linear, PuzzleMix
from hf_logitmix.mixing.puzzlemix import puzzlemix
from hf_logitmix.modalities.hooks import AppendMixedRows, OverwriteMixedRows, check_checkpointing
from hf_logitmix.modalities.layers import layers_of
from hf_logitmix.objectives.second_head import SecondHead
from hf_logitmix.step import Step

PIXELS = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1, 0])
PLAN = MixPlan(torch.tensor([1, 2, 3, 4, 0]), torch.tensor([0.3, 1.0, 0.6, 0.0, 0.9]))


def tiny_convnext():
    torch.manual_seed(0)
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3, initializer_range=0.3)
    return ConvNextForImageClassification(config)


def tiny_timm():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    return TimmWrapperForImageClassification(TimmWrapperConfig(architecture="resnet10t", num_labels=3))


MODELS = {"vit": tiny_vit, "resnet": tiny_resnet, "convnext": tiny_convnext, "timm": tiny_timm}


def by_hand(model, level: int) -> torch.Tensor:
    """The logits of the mixed rows: every pair alone, its two hidden states taken from plain forwards and put back."""
    layer = layers_of(model).hidden[level - 1]

    def hidden(row):
        kept = []
        handle = layer.register_forward_hook(lambda m, a, output: kept.append(output))
        model(pixel_values=PIXELS[row : row + 1])
        handle.remove()
        return kept[0] if isinstance(kept[0], torch.Tensor) else kept[0][0]

    logits = []
    for row, (partner, lam) in enumerate(zip(PLAN.partner, PLAN.lam, strict=True)):
        mixed = lam * hidden(row) + (1 - lam) * hidden(int(partner))
        handle = layer.register_forward_hook(
            lambda m, a, output, mixed=mixed: mixed if isinstance(output, torch.Tensor) else (mixed, *output[1:])
        )
        logits.append(model(pixel_values=PIXELS[row : row + 1]).logits)
        handle.remove()
    return torch.cat(logits)


@pytest.mark.parametrize("rows", ["both", "mixed"])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_layers_are_mixed_as_by_hand(name, rows):
    model = MODELS[name]().eval()
    clean = model(pixel_values=PIXELS).logits
    for level in range(1, len(layers_of(model).hidden) + 1):
        output = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=Linear(level=f"hidden:{level}"), rows=rows)
        torch.testing.assert_close(output.mixed_logits, by_hand(model, level), atol=1e-5, rtol=1e-5)
        if rows == "both":
            torch.testing.assert_close(output.logits, clean, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_part_of_the_batch_is_mixed_at_a_layer():
    model, short = tiny_vit().eval(), MixPlan(PLAN.partner[:2], PLAN.lam[:2])
    output = mixed_forward(model, {"pixel_values": PIXELS}, short, mixing=Linear(level="hidden:1"), rows="both")
    torch.testing.assert_close(output.mixed_logits, by_hand(model, 1)[:2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_manifold_draws_pixels_too():
    """The lowest draw is the pixels, the highest the last layer."""
    model = tiny_vit().eval()
    mixed = {}
    for draw in (0.0, 0.99):
        given = {"mixing": Linear(level="manifold"), "step": SimpleNamespace(uniform=lambda purpose, draw=draw: draw)}
        mixed[draw] = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, rows="mixed", **given).mixed_logits
    lam = PLAN.lam.reshape(-1, 1, 1, 1)
    at_pixels = model(pixel_values=lam * PIXELS + (1 - lam) * PIXELS[PLAN.partner]).logits
    torch.testing.assert_close(mixed[0.0], at_pixels)
    torch.testing.assert_close(mixed[0.99], by_hand(model, 2), atol=1e-5, rtol=1e-5)


def test_rows_that_are_mixed_among_themselves_cost_one_forward(tmp_path):
    model, rows = tiny_vit(), []
    model.register_forward_pre_hook(lambda m, a, k: rows.append(len(k["pixel_values"])), with_kwargs=True)
    data = [{"pixel_values": pixels, "labels": int(label)} for pixels, label in zip(PIXELS, LABELS, strict=True)] * 4
    MixTrainer(model=model, args=arguments(tmp_path), method="manifold_mixup", train_dataset=data).train()
    assert max(rows) == 8


def test_images_without_layers_are_refused():
    class Flat(nn.Module):
        main_input_name = "pixel_values"

        def forward(self, pixel_values):
            return pixel_values.flatten(1)[:, :3]

    with pytest.raises(ValueError, match=r"level='hidden:1' needs a model with one list of hidden layers"):
        mixed_forward(Flat(), {"pixel_values": PIXELS}, PLAN, mixing=Linear(level="hidden:1"))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet", "test_convnext", "gmlp_ti16_224"])
def test_layers_that_timm_checkpoints_are_refused(tmp_path, architecture, wrapped):
    timm = pytest.importorskip("timm")
    from hf_logitmix.vision.wrap import as_classifier

    size = {} if architecture in ("test_resnet", "test_convnext") else {"img_size": 16}
    options = {"architecture": architecture, "num_labels": 3, "model_args": size}
    model = TimmWrapperForImageClassification(TimmWrapperConfig(**options)) if wrapped else None
    model = as_classifier(timm.create_model(architecture, num_classes=3, **size)) if model is None else model
    data = [{"pixel_values": pixels, "labels": int(label)} for pixels, label in zip(PIXELS, LABELS, strict=True)]
    args = arguments(tmp_path, max_steps=1, gradient_checkpointing=True)
    method = get_method("mixup", level="hidden:1")
    with pytest.raises(ValueError, match="level='hidden:1' mixes at layers that activation checkpointing"):
        MixTrainer(model=model, args=args, method=method, train_dataset=data).train()


@pytest.mark.slow
def test_checkpointing_is_seen_in_every_module_of_timm():
    timm = pytest.importorskip("timm")
    for name in sorted(TIMM):
        if not timm.is_model(TIMM[name][0]):
            continue  # of a later release
        model = timm_model(name)
        if hasattr(model.timm_model, "set_grad_checkpointing"):
            try:
                model.timm_model.set_grad_checkpointing(True)
            except AssertionError:  # timm's way of saying that the model has none
                continue
            with pytest.raises(ValueError, match="activation checkpointing"):
                check_checkpointing(model, "manifold")


@pytest.mark.parametrize("kind", ["clean rows too", "among themselves"])
def test_all_that_a_layer_puts_out_is_mixed(kind):
    """Every float tensor with a row an image, in tuples, lists and dicts; nothing else."""
    rows = 10 if kind == "clean rows too" else 5
    clean_too = kind == "clean rows too"
    forward = (
        OverwriteMixedRows("hidden:1", PLAN, 5)
        if clean_too
        else AppendMixedRows("hidden:1", PLAN, 5, keeps_clean=False)
    )
    image, token, scale = torch.randn(rows, 2, 3), torch.randn(rows, 1), torch.randn(7, 2)
    where = torch.arange(rows)
    found = forward.after_layer(1, (image, [token, None, {"scale": scale, "where": where}], 3))

    def by_loop(tensor):
        mixed = [
            lam * tensor[i] + (1 - lam) * tensor[j]
            for i, (j, lam) in enumerate(zip(PLAN.partner, PLAN.lam, strict=True))
        ]
        return torch.stack([*tensor[: rows - 5], *mixed])

    assert isinstance(found, tuple)
    torch.testing.assert_close(found[0], by_loop(image))
    torch.testing.assert_close(found[1][0], by_loop(token))
    assert found[1][1] is None
    assert found[1][2]["scale"] is scale
    assert found[1][2]["where"] is where
    assert found[2] == 3
    assert forward.fired


def test_what_holds_no_row_an_image_is_not_called_mixed():
    forward = AppendMixedRows("hidden:1", PLAN, 5, keeps_clean=False)
    forward.after_layer(1, (torch.randn(20, 3), [torch.arange(5)], "text"))
    assert not forward.fired


@pytest.mark.parametrize(("architecture", "count"), [("tresnet_m", 4), ("crossvit_tiny_240", 3), ("test_resnet", 5)])
def test_levels_are_layers_each_of_them_once(architecture, count):
    """Of TResNet timm calls the whole model a feature, and of CrossViT each layer twice."""
    timm = pytest.importorskip("timm")
    from hf_logitmix.vision.wrap import as_classifier

    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=3)
    if not hasattr(model, "feature_info"):
        pytest.skip(f"this release of timm does not tell the features of {architecture}")
    layers = layers_of(as_classifier(model)).hidden
    assert len(layers) == len({id(layer) for layer in layers}) == count
    assert model not in layers


# ---- PuzzleMix in a model --------------------------------------------------------------------------------------


def saliency_by_hand(model) -> torch.Tensor:
    """Norm over the channels of the gradient of each image's own cross-entropy, image by image."""
    found = []
    for pixels, label in zip(PIXELS, LABELS, strict=True):
        pixels = pixels[None].clone().requires_grad_()
        F.cross_entropy(model(pixel_values=pixels).logits, label[None]).backward()
        found.append(pixels.grad[0].square().mean(0).sqrt())
    model.zero_grad()
    return torch.stack(found)


@pytest.mark.parametrize("rows", ["both", "mixed"])
def test_puzzlemix_is_the_function_on_the_models_own_saliency(rows):
    model = tiny_vit()
    mixing = PuzzleMix(block_num=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    output = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=mixing, rows=rows, labels=LABELS)
    statistics = {"mean": torch.tensor([0.5, 0.4, 0.3]), "std": torch.tensor([0.2, 0.3, 0.4])}
    mixed, true_plan = puzzlemix(PIXELS, saliency_by_hand(model), PLAN, block_num=4, **statistics)
    torch.testing.assert_close(output.plan.lam, true_plan.lam)
    torch.testing.assert_close(output.mixed_logits, model(pixel_values=mixed).logits, atol=1e-5, rtol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())
    if rows == "both":
        torch.testing.assert_close(output.logits, model(pixel_values=PIXELS).logits)
        assert output.logits.requires_grad
    with torch.no_grad():
        again = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=mixing, rows=rows, labels=LABELS)
    torch.testing.assert_close(again.mixed_logits, output.mixed_logits)


class Noisy(nn.Module):
    """Batch statistics, that are far from the pixels' own in the first layer, and dropout."""

    main_input_name = "pixel_values"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(6)
        self.conv, self.drop, self.head = nn.Conv2d(3, 6, 4, 4), nn.Dropout(0.5), nn.Linear(96, 3)
        self.first.running_mean.copy_(torch.tensor([0.1, 0.5, 0.9]))
        self.first.running_var.copy_(torch.tensor([1.0, 0.1, 0.01]))
        self.train()

    def train(self, mode=True):
        super().train(mode)
        self.trained = mode  # as a model does that keeps more than flags
        return self

    def forward(self, pixel_values):
        hidden = F.adaptive_avg_pool2d(self.second(self.conv(self.first(pixel_values))).relu(), 4)
        return self.head(self.drop(hidden.flatten(1)))


def recorded(monkeypatch) -> list[torch.Tensor]:
    """The saliency that PuzzleMix hands on."""
    found: list[torch.Tensor] = []

    def record(pixels, saliency, *args, **kwargs):
        found.append(saliency)
        return puzzlemix(pixels, saliency, *args, **kwargs)

    monkeypatch.setattr("hf_logitmix.mixing.puzzle.puzzlemix", record)
    return found


@pytest.mark.parametrize("rows", ["both", "mixed"])
def test_saliency_is_the_root_of_the_mean_square_over_channels(rows, monkeypatch):
    model, found = tiny_vit(), recorded(monkeypatch)
    mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=PuzzleMix(block_num=4), labels=LABELS, rows=rows)
    torch.testing.assert_close(found[0], saliency_by_hand(model), atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("name", ["puzzlemix", "lamix_p"])
def test_saliency_is_found_in_evaluation_mode_and_leaves_no_trace(name, monkeypatch):
    """One forward in training mode, that of the mixed images, and nothing else moves statistics or draws dropout."""
    model, found = Noisy(), recorded(monkeypatch)
    model.first.eval()
    before, modes = copy.deepcopy(model), {key: module.training for key, module in model.named_modules()}
    mixing = METHODS[name].with_options(block_num=4).mixing
    torch.manual_seed(1)
    output = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=mixing, rows="mixed", labels=LABELS)

    quiet = copy.deepcopy(before).eval()
    pixels = PIXELS.clone().requires_grad_()
    F.cross_entropy(quiet(pixels), LABELS, reduction="sum").backward()
    torch.testing.assert_close(found[0], pixels.grad.square().mean(1).sqrt())
    mixed, _ = puzzlemix(PIXELS, found[0], PLAN, block_num=4)
    torch.manual_seed(1)
    torch.testing.assert_close(output.mixed_logits, before(mixed))
    for key, value in before.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)
    assert {key: module.training for key, module in model.named_modules()} == modes
    assert model.trained
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_come_back_from_saliency_that_fails():
    model = Noisy()
    model.first.eval()
    model.head.register_forward_hook(lambda module, args, output: output[:2])
    with pytest.raises(ValueError, match="for 5 rows"):
        mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=PuzzleMix(block_num=4), labels=LABELS, rows="mixed")
    assert [model.training, model.first.training, model.second.training, model.trained] == [True, False, True, True]


def test_the_shared_forward_of_logitmix_p_is_in_training_mode(monkeypatch):
    """Its clean rows are trained on: statistics move with the clean batch and then with the mixed one."""
    model, found = Noisy(), recorded(monkeypatch)
    by_hand = copy.deepcopy(model)
    mixing = PuzzleMix(block_num=4)
    torch.manual_seed(1)
    output = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=mixing, rows="both", labels=LABELS)
    pixels = PIXELS.clone().requires_grad_()
    torch.manual_seed(1)
    clean = by_hand(pixels)
    (gradient,) = torch.autograd.grad(F.cross_entropy(clean, LABELS, reduction="sum"), pixels)
    torch.testing.assert_close(found[0], gradient.square().mean(1).sqrt())
    mixed, _ = puzzlemix(PIXELS, found[0], PLAN, block_num=4)
    torch.testing.assert_close(output.logits, clean)
    torch.testing.assert_close(output.mixed_logits, by_hand(mixed))
    assert model.second.num_batches_tracked == 2
    torch.testing.assert_close(model.second.running_var, by_hand.second.running_var)


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["both", "mixed"])
def test_the_modes_of_saliency_compile_nothing_anew(rows):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = torch.compile(Noisy(), backend=backend)
    mixing = PuzzleMix(block_num=4)
    frames = []
    for _ in range(4):
        output = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=mixing, rows=rows, labels=LABELS)
        output.mixed_logits.sum().backward()
        frames.append(len(compiled))
    assert frames[0] > 0
    assert frames == [frames[0]] * 4


@pytest.mark.parametrize(
    ("options", "pixels", "message"),
    [
        ({"t_size": 3}, PIXELS, "t_size=3 does not divide blocks of 8"),
        ({"t_size": 4}, torch.rand(5, 3, 56, 56), "t_size=4 does not divide blocks of 14"),
    ],
)
def test_a_t_size_that_some_grid_does_not_fit_is_refused_whatever_grid_is_drawn(options, pixels, message):
    for draw in (0.0, 0.99):
        given = {"mixing": PuzzleMix(**options), "step": SimpleNamespace(uniform=lambda purpose, draw=draw: draw)}
        with pytest.raises(ValueError, match=message):
            mixed_forward(Noisy(), {"pixel_values": pixels}, PLAN, labels=LABELS, **given)


def test_a_t_size_below_one_pixel_is_refused():
    with pytest.raises(ValueError, match="t_size=-1: pass the side"):
        PuzzleMix(t_size=-1)


def test_logitmix_p_trains_on_its_shared_forward(tmp_path):
    """One step of SGD, with the two forwards and the three losses by hand."""
    data = [{"pixel_values": pixels, "labels": int(label)} for pixels, label in zip(PIXELS, LABELS, strict=True)]

    def collate(rows):
        return {**default_data_collator(rows), "partner": PLAN.partner, "lam": PLAN.lam}

    class InOrder(MixTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    method = get_method("logitmix_p", block_num=4)
    args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=5)
    model = tiny_vit()
    InOrder(model=model, args=args, method=method, train_dataset=data, data_collator=collate).train()
    plain = tiny_vit().train()
    mixed, plan = puzzlemix(PIXELS, saliency_by_hand(plain), PLAN, block_num=4)
    clean, blend = plain(pixel_values=PIXELS).logits, plain(pixel_values=mixed).logits
    own, other = (F.cross_entropy(blend, LABELS[index], reduction="none") for index in (range(5), plan.partner))
    lam = plan.lam[:, None]
    similarity = (lam * clean + (1 - lam) * clean[plan.partner] - blend).square().mean()
    loss = (plan.lam * own + (1 - plan.lam) * other).mean() + F.cross_entropy(clean, LABELS) + similarity
    loss.backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.grad is not None:
                parameter -= args.learning_rate * parameter.grad
    torch.testing.assert_close(weights(model), weights(plain), atol=1e-5, rtol=1e-4)


def test_lamix_p_mixes_at_one_half_and_keeps_the_labels_lam():
    model, method = tiny_vit(), METHODS["lamix_p"].with_options(block_num=4)
    plan = method.pairing({"pixel_values": PIXELS}, LABELS, Step(3, 9))
    output = mixed_forward(model, {"pixel_values": PIXELS}, plan, mixing=method.mixing, rows="mixed", labels=LABELS)
    half = MixPlan(plan.partner, torch.full((5,), 0.5))
    mixed, _ = puzzlemix(PIXELS, saliency_by_hand(model), half, block_num=4)
    torch.testing.assert_close(output.mixed_logits, model(pixel_values=mixed).logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(output.plan.weight_of_label, plan.label_lam)
    assert not (plan.label_lam == 0.5).any()


@pytest.mark.parametrize(
    ("options", "pixels", "message"),
    [
        ({"block_num": 5}, PIXELS, "block_num=5 does not divide images of 16"),
        ({"block_num": 32}, PIXELS, "block_num=32"),
        ({}, torch.rand(5, 3, 9, 9), "images of 9 pixels are divided by none"),
        (
            {"block_num": 4, "mean": (0.5,) * 3, "std": (0.5,) * 3},
            PIXELS[:, :1],
            "mean=.* has 3 numbers and .* 1 channels",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(options, pixels, message):
    class Sums(nn.Module):
        main_input_name = "pixel_values"

        def forward(self, pixel_values):
            return pixel_values.flatten(1).cumsum(1)[:, :3]

    with pytest.raises(ValueError, match=message):
        mixed_forward(Sums(), {"pixel_values": pixels}, PLAN, mixing=PuzzleMix(**options), labels=LABELS)


@pytest.mark.parametrize("name", ["puzzlemix", "logitmix_p", "lamix_p"])
def test_text_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"PuzzleMix.* is for images and BertForSequenceClassification reads text"):
        MixTrainer(model=tiny_bert(), args=arguments(tmp_path), method=name, train_dataset=examples(4))


def test_labels_are_needed():
    with pytest.raises(ValueError, match="pass labels="):
        mixed_forward(tiny_vit(), {"pixel_values": PIXELS}, PLAN, mixing=PuzzleMix())


def test_a_second_head_has_no_say_in_saliency(tmp_path):
    """LaMix_p with beta below 1: the logits of the saliency pass are the classifier's alone."""
    model = tiny_vit()
    mixing = METHODS["lamix_p"].with_options(block_num=4).mixing
    with torch.random.fork_rng():
        head = SecondHead(model, 3)
        nn.init.normal_(head.linear.weight, std=5.0)
    plain = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=mixing, rows="mixed", labels=LABELS)
    with head.install(model.train()):
        beside = mixed_forward(model, {"pixel_values": PIXELS}, PLAN, mixing=mixing, rows="mixed", labels=LABELS)
    assert beside.mixed_logits.shape == (5, 6)
    torch.testing.assert_close(beside.mixed_logits[:, :3], plain.mixed_logits)


def test_half_precision_keeps_the_saliency_of_images_that_are_sure():
    """A gap of 17 between the logits: gradients of 1e-8 and less, which float16 alone would round to zero."""
    model = tiny_vit()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([17.0, 0.0, 0.0]))
    mixing = PuzzleMix(block_num=4, transport=False)
    plan = MixPlan(PLAN.partner, torch.full((5,), 0.5))
    exact = mixed_forward(model, {"pixel_values": PIXELS}, plan, mixing=mixing, rows="mixed", labels=LABELS)
    with torch.autocast("cpu", dtype=torch.float16):
        rounded = mixed_forward(model, {"pixel_values": PIXELS}, plan, mixing=mixing, rows="mixed", labels=LABELS)
    torch.testing.assert_close(rounded.plan.lam, exact.plan.lam, atol=0.05, rtol=0)
