"""The small models against published numbers of parameters and sums by hand; models by name, saved and loaded."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from helpers.image_architectures import Bare
from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.mixing import Linear
from hf_logitmix.modalities.layers import layers_of

timm = pytest.importorskip("timm")
pytest.importorskip("torchvision")

from timm.optim import param_groups_layer_decay  # noqa: E402

from hf_logitmix.vision.inputs import InputConfig, input_config  # noqa: E402
from hf_logitmix.vision.models import create_model  # noqa: E402

NAMES = timm.list_models("small_*")
RESIZED = ["small_lenet", "small_alexnet"]  # their maps are not the image's size divided by a power of two
PARTNER = torch.tensor([1, 2, 3, 0])
FAST = ["small_lenet", "small_resnet8", "small_resnet18", "small_shufflenetv2", "small_mobilenetv2", "small_inception"]


def images(size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(0))


def on_meta(name: str, **kwargs):
    """A model of ten classes without memory, which has shapes all the same."""
    with torch.device("meta"):
        return timm.create_model(name, num_classes=10, **kwargs).eval()


def settled(name: str, channels: int = 3):
    """A random model whose running statistics are those of the images: different images give different logits."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, in_chans=channels)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.ones_(module.weight)  # timm starts some at 0
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        model(images(channels=channels))
    return model.eval()


# ---- what they are ---------------------------------------------------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # of ten classes and three channels, as github.com/kuangliu/pytorch-cifar builds them where it does
        ("small_preact_resnet18", 11_171_146 + 2 * 512),  # which lacks the last BatchNorm
        ("small_resnet18", 11_173_962),
        ("small_resnet34", 21_282_122),
        ("small_resnet50", 23_520_842),
        ("small_resnet152", 58_156_618),
        ("small_vgg11", 9_231_114),
        ("small_vgg16", 14_728_266),
        ("small_vgg19", 20_040_522),
        ("small_densenet121", 6_956_298 + 2 * 64),  # which lacks the BatchNorm behind the first convolution
        ("small_wrn28_10", 36_479_194),  # 36.5M in the paper
        ("small_wrn16_8", 10_961_370),  # 11.0M in the paper
        # those of 1000 classes in timm's and torchvision's tables, with another head and first convolution
        ("small_resnext50_32x4d", 25_028_904 - 990 * 2049 - 64 * 3 * (49 - 9)),
        ("small_mobilenetv2", 3_504_872 - 990 * 1281),
        ("small_shufflenetv2", 2_278_604 - 990 * 1025),
        ("small_inception", 6_624_904 - 990 * 1025 - 64 * 3 * (49 - 9)),
    ],
)
def test_published_sizes(name, parameters):
    assert count(on_meta(name)) == parameters


def test_sizes_by_hand():
    assert count(on_meta("small_lenet", in_chans=1)) == 61_706
    assert count(on_meta("small_lenet", in_chans=1)) == 156 + 2416 + (401 * 120) + (121 * 84) + (85 * 10)

    def stage(before, after, depth):  # 3x3 convolutions without bias, two BatchNorms a block, a projection with its own
        first = 9 * (before * after + after**2) + 4 * after + (before * after + 2 * after) * (before != after)
        return first + (depth - 1) * (18 * after**2 + 4 * after)

    for depth, name in ((9, "small_resnet56"), (5, "small_resnet32"), (1, "small_resnet8"), (3, "small_resnet20")):
        by_hand = 27 * 16 + 32 + stage(16, 16, depth) + stage(16, 32, depth) + stage(32, 64, depth) + 650
        assert count(on_meta(name)) == by_hand
    assert round(by_hand / 1e6, 2) == 0.27  # the paper's table 6

    def preact_stage(before, after, depth):  # the first norm is of the channels before
        first = 9 * (before * after + after**2) + 2 * (before + after) + before * after * (before != after)
        return first + (depth - 1) * (18 * after**2 + 4 * after)

    wide = sum(preact_stage(*pair, 4) for pair in ((16, 192), (192, 384), (384, 768)))
    assert count(on_meta("small_wrn28_12")) == 27 * 16 + wide + 2 * 768 + 769 * 10
    widths = [(64, 64), (64, 128), (128, 256), (256, 512)]
    for depths, name in (((2, 2, 2, 2), "small_preact_resnet18"), ((3, 4, 6, 3), "small_preact_resnet34")):
        stages = sum(preact_stage(*pair, depth) for pair, depth in zip(widths, depths, strict=True))
        assert count(on_meta(name)) == 27 * 64 + stages + 2 * 512 + 513 * 10

    convolutions = [(3, 64, 3), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3)]
    dense = [(9 * 256, 4096), (4096, 4096), (4096, 10)]
    by_hand = sum((a * k**2 + 1) * b for a, b, k in convolutions) + sum((a + 1) * b for a, b in dense)
    assert count(on_meta("small_alexnet")) == by_hand


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name):
    """At 32 and 64 pixels: logits, the first map at full resolution, and what `feature_info` says of each level."""
    model = on_meta(name, in_chans=1)
    modules = dict(model.named_modules())
    rows, maps = list(model.feature_info), {}
    first = modules[model.default_cfg["first_conv"]]
    first.register_forward_hook(lambda m, a, output: maps.update(first=output))
    for row in rows:
        modules[row["module"]].register_forward_hook(
            lambda m, a, output, name=row["module"]: maps.update({name: output})
        )
    assert first.in_channels == 1
    assert first.stride == (1, 1)
    for size in (32, 64):
        assert model(torch.empty(2, 1, size, size, device="meta")).shape == (2, 10)
        assert maps["first"].shape[-1] == (size if name != "small_lenet" else size - 4)
        for row in rows:
            assert maps[row["module"]].shape[1] == row["num_chs"]
            if name not in RESIZED:
                assert maps[row["module"]].shape[-1] == size // row["reduction"]
        features = model.forward_features(torch.empty(2, 1, size, size, device="meta"))
        assert features.shape[1] == model.num_features
        assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
        assert model.forward_head(features).shape == (2, 10)


@pytest.mark.parametrize("name", NAMES)
def test_timm_can_work_with_them(name):
    """A new classifier, the names in the configuration, and learning rates that decay by layer."""
    model = on_meta(name, drop_rate=0.1, pretrained_cfg_overlay={"crop_pct": 0.9}, cache_dir="nowhere")
    assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()
    assert model.default_cfg["input_size"] == (3, 32, 32)
    assert model.default_cfg["crop_pct"] == 0.9
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scales = sorted({group["lr_scale"] for group in groups})
    assert len(scales) > len(model.feature_info)
    assert scales[-1] == 1
    by_layer = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(by_layer) == len(list(model.parameters()))
    assert by_layer[id(model.get_submodule(model.default_cfg["first_conv"]).weight)] == scales[0]
    assert by_layer[id(model.get_classifier().weight)] == 1
    with torch.device("meta"):
        model.reset_classifier(4)
    assert model.num_classes == 4
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 4)
    model.reset_classifier(0)
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, model.head_hidden_size)


def test_every_small_model_is_tried():
    assert len(NAMES) == 23
    assert timm.create_model("small_lenet", device="meta").fc.weight.is_meta
    assert isinstance(timm.create_model("small_lenet", num_classes=0).fc, nn.Identity)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_lam_0_at_a_layer_gives_the_partner(name):
    network = settled(name, channels=1)
    model, inputs = Bare(network), {"pixel_values": images(channels=1)}
    layers = layers_of(model).hidden
    assert layers == [network.get_submodule(row["module"]) for row in network.feature_info]
    with torch.no_grad():
        clean = model(**inputs)
        assert clean.std(0).min() > 1e-3
        for level in range(1, len(layers) + 1):
            plan = MixPlan(PARTNER, torch.zeros(4))
            output = mixed_forward(model, inputs, plan, mixing=Linear(level=f"hidden:{level}"), rows="both")
            torch.testing.assert_close(output.logits, clean, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(output.mixed_logits, clean[PARTNER], atol=1e-4, rtol=1e-4)


def test_preact_block_by_hand():
    """A block reads its shortcut from the activated input where the shape changes, and from the input elsewhere."""
    model = settled("small_preact_resnet18")
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    for block, kept in ((model.stages[0][0], True), (model.stages[1][0], False)):
        active = block.norm1(x).relu()
        shortcut = x if kept else block.shortcut(active)
        expected = shortcut + block.conv2(block.norm2(block.conv1(active)).relu())
        torch.testing.assert_close(block(x), expected)
        assert (block.shortcut is None) == kept


def test_a_small_model_learns():
    torch.manual_seed(0)
    model = timm.create_model("small_resnet8", num_classes=4, in_chans=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, labels = images(channels=1), torch.arange(4)
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]


# ---- by name ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("small_resnet20", None), ("small_resnet18", None), ("resnet18", 32), ("test_vit", 32)]
)
def test_saved_models_load_everywhere(name, size, tmp_path):
    """With transformers and both ways of timm: the same logits, labels and preprocessing."""
    torch.manual_seed(0)
    labels = ["cat", "dog", "fish"]
    model = create_model(f"timm/{name}", 3, channels=1, image_size=size, label_names=labels).eval()
    x = images(channels=1)
    with torch.no_grad():
        expected = model(x).logits
        assert expected.shape == (4, 3)
        model.save_pretrained(tmp_path)
        again = AutoModelForImageClassification.from_pretrained(tmp_path)
        torch.testing.assert_close(again(x).logits, expected, rtol=0, atol=0)
        options = {"img_size": 32} if name == "test_vit" else {}
        weights = {"num_classes": 3, "in_chans": 1, "checkpoint_path": str(tmp_path / "model.safetensors")}
        torch.testing.assert_close(timm.create_model(name, **weights, **options).eval()(x), expected, rtol=0, atol=0)
        if hasattr(timm.models, "load_model_config_from_path"):
            there = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
            torch.testing.assert_close(there(x), expected, rtol=0, atol=0)
    assert again.config.id2label == dict(enumerate(labels))
    assert again.config.label2id == {label: index for index, label in enumerate(labels)}
    assert input_config(again) == input_config(model)
    assert input_config(model).image_size == 32
    assert input_config(model).channels == len(input_config(model).mean) == 1
    transforms = AutoImageProcessor.from_pretrained(tmp_path).val_transforms
    assert "size=(32, 32)" in str(transforms)
    assert create_model(str(tmp_path), 3, channels=1).config.id2label == dict(enumerate(labels))
    other = create_model(str(tmp_path), 5, channels=1)  # a new head on the same body
    assert other(x).logits.shape == (4, 5)
    kept = dict(model.named_parameters())
    assert sum(torch.equal(p, kept[n]) for n, p in other.named_parameters()) >= len(kept) - 2


def test_weights_are_those_that_timm_draws():
    torch.manual_seed(0)
    model = create_model("timm/small_resnet8", 3)
    torch.manual_seed(0)
    theirs = timm.create_model("small_resnet8", num_classes=3)
    assert model.name_or_path == model.config.name_or_path == ""  # what a model card calls its base
    for name, parameter in theirs.named_parameters():
        assert torch.equal(model.timm_model.get_parameter(name), parameter), name


def test_input_config_of_timm():
    model = create_model("timm/small_lenet", 3)
    half = (0.5, 0.5, 0.5)
    assert input_config(model) == InputConfig(3, 32, half, half, "bilinear", 1.0)
    assert input_config(create_model("timm/small_lenet", 3, image_size=64)).image_size == 64
    assert input_config(timm.create_model("small_lenet", in_chans=1)).channels == 1
    resnet = input_config(create_model("timm/resnet10t", 3, channels=2))
    assert resnet.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,) * 2)
    assert resnet.crop_pct == timm.create_model("resnet10t").pretrained_cfg["crop_pct"] < 1
    for size in (64, resnet.image_size):  # as timm.data.resolve_data_config has it at any size
        assert input_config(create_model("timm/resnet10t", 3, image_size=size)).crop_pct == resnet.crop_pct
    assert input_config(create_model("timm/resnet10t", 3, image_size=64, crop_pct=0.9)).crop_pct == 0.9
    assert input_config(nn.Linear(1, 1)) == InputConfig()


def test_models_of_transformers(tmp_path):
    vit, resnet = tmp_path / "vit", tmp_path / "resnet"
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=3)).save_pretrained(vit)
    assert input_config(create_model(str(vit), 3)) == InputConfig(3, 32)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1] * 3).save_pretrained(vit)
    model = create_model(str(vit), 2, label_names=["a", "b"], image_size=32)
    assert input_config(model) == InputConfig(3, 32, (0.1,) * 3, (0.5,) * 3, "bilinear")
    assert model.config.id2label == {0: "a", 1: "b"}
    with pytest.raises(ValueError, match=r"channels=1, but .* reads images of 3: pass channels=3"):
        create_model(str(vit), 3, channels=1)
    with pytest.raises(ValueError, match=r"image_size=64, but .* was made for 32: pass image_size=32"):
        create_model(str(vit), 3, image_size=64)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_channels=1, num_labels=3)
    ResNetForImageClassification(config).save_pretrained(resnet)
    assert input_config(create_model(str(resnet), 3, channels=1, image_size=48)) == InputConfig(1)


def test_refusals():
    with pytest.raises(ValueError, match=r"name='resnet18' is a model of timm: write 'timm/resnet18'"):
        create_model("resnet18", 3)
    with pytest.raises(ValueError, match=r"no model 'small_resnet81': pass 'timm/small_resnet"):
        create_model("timm/small_resnet81", 3)
    with pytest.raises(ValueError, match=r"no model 'zzzzzz': pass a name that timm.list_models\(\) lists"):
        create_model("timm/zzzzzz", 3)
    with pytest.raises(ValueError, match=r"2 label_names for num_labels=3: pass one name a class"):
        create_model("timm/small_lenet", 3, label_names=["a", "b"])
    with pytest.raises(ValueError, match=r"pretrained=True: timm has no weights of small_lenet: leave it out"):
        create_model("timm/small_lenet", 3, pretrained=True)
    with pytest.raises(ValueError, match=r"global_pool='max' is unknown to SmallNet: leave it out"):
        timm.create_model("small_lenet").reset_classifier(3, "max")
