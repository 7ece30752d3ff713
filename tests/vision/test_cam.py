"""Class activation maps: the formula by a plain loop, the logits that they must add up to, and a planted object."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from helpers.image_architectures import Bare, draw, settle, tiny_model

timm = pytest.importorskip("timm")
pytest.importorskip("torchvision")

from hf_logitmix.models import classifier_of  # noqa: E402
from hf_logitmix.training.command_line import exit_with  # noqa: E402
from hf_logitmix.vision import cam  # noqa: E402
from hf_logitmix.vision import data as image_data  # noqa: E402
from hf_logitmix.vision.cam import (  # noqa: E402
    Look,
    activation_maps,
    choose,
    class_activation_map,
    draw_maps,
    look_at,
    main,
)
from hf_logitmix.vision.models import create_model  # noqa: E402

load_images = cache(image_data.load_images)  # the synthetic images take a second to draw


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def settled(model, size: int = 32, channels: int = 3):
    """A random model that gives different images different logits, and images for it."""
    pixels = random(4, channels, size, size)
    draw(model)
    settle(model, {"pixel_values": pixels})
    return model, pixels


# ---- the maps ------------------------------------------------------------------------------------------------------


def test_the_formula_by_a_plain_loop():
    features, weight, classes = random(2, 3, 2, 4), random(5, 3), torch.tensor([4, 1])
    maps = class_activation_map(features, weight, classes)
    assert maps.shape == (2, 2, 4)
    for b, x, y in np.ndindex(2, 2, 4):
        expected = sum(weight[classes[b], k] * features[b, k, x, y] for k in range(3))
        assert maps[b, x, y].item() == pytest.approx(expected.item(), abs=1e-5)


class Functional(nn.Module):
    """Its last activation and its pooling are functions, which no hook on a module sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 5, 4), nn.Linear(6, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.conv(pixels)).mean((2, 3)))


MODELS = {
    "small_resnet8": lambda: (create_model("timm/small_resnet8", 3), 32),
    "small_preact_resnet18": lambda: (create_model("timm/small_preact_resnet18", 3), 32),
    "test_resnet": lambda: (create_model("timm/test_resnet", 3), 96),
    "test_efficientnet": lambda: (create_model("timm/test_efficientnet", 3), 96),
    "ResNet of transformers": lambda: (tiny_model("ResNetForImageClassification"), 32),
    "functions": lambda: (Bare(Functional()), 32),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_a_map_and_the_bias_are_the_logit(name):
    torch.manual_seed(0)
    model, size = MODELS[name]()
    model, pixels = settled(model, size)
    with torch.no_grad():
        output = model(pixels)
        bias = classifier_of(model, 3).bias
    expected = output if isinstance(output, torch.Tensor) else output.logits
    assert expected.std(0).max() > 1e-3
    for number in range(3):
        maps, logits = activation_maps(model, pixels, torch.full((4,), number))
        assert maps.dim() == 3
        assert maps[0].numel() > 1
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(maps.mean((1, 2)) + bias[number], expected[:, number], rtol=1e-4, atol=1e-4)
    maps, logits = activation_maps(model, pixels)
    chosen = activation_maps(model, pixels, expected.argmax(1))[0]
    torch.testing.assert_close(maps, chosen)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_a_planted_object_is_found(row, column):
    """Class 1 is for red and class 0 for blue: the one red place is where the map of class 1 is highest."""
    convolution, head = nn.Conv2d(3, 3, 4, 4), nn.Linear(3, 2)
    model = Bare(nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head))
    model.config.num_labels = 2
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)
        convolution.bias.zero_()
        head.weight.copy_(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    pixels = torch.full((1, 3, 32, 32), 0.1)
    pixels[:, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    pixels[:, 2, 12:16, 12:16] = 0.5
    for number, place, height in ((1, (row, column), 1.0), (0, (3, 3), 0.5)):
        maps, _ = activation_maps(model, pixels, torch.tensor([number]))
        assert maps.shape == (1, 8, 8)
        assert divmod(int(maps[0].argmax()), 8) == place
        assert maps.max().item() == pytest.approx(height, abs=1e-5)


def test_the_model_is_left_as_it_was():
    model, pixels = settled(create_model("timm/small_resnet8", 3))
    model.train()
    model.timm_model.stem.eval()  # as where a part is frozen
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    maps, logits = activation_maps(model, pixels)
    assert not maps.requires_grad
    assert not logits.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


NO_MAPS = {
    "tokens": lambda: create_model("timm/test_vit", 3, image_size=32),
    "hidden layers": lambda: create_model("timm/small_lenet", 3),
    "a map of one place": lambda: create_model("timm/small_vgg11", 3),
    "a norm behind the pooling": lambda: create_model("timm/test_convnext", 3),
    "the same in transformers": lambda: tiny_model("ConvNextForImageClassification"),
    "the largest instead of the mean": lambda: Bare(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    ),
    "no linear classifier": lambda: Bare(nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())),
}


@pytest.mark.parametrize("name", NO_MAPS)
def test_models_without_maps_are_refused(name):
    torch.manual_seed(0)
    model, pixels = settled(NO_MAPS[name](), 64 if "norm" in name or "same" in name else 32)
    model.train()
    with pytest.raises(ValueError, match=r"no feature map of several places .* pass a CNN such as timm/small_resnet18"):
        activation_maps(model, pixels)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


# ---- what is looked at, and the picture ----------------------------------------------------------------------------


@pytest.mark.slow
def test_images_are_read_as_they_are_evaluated():
    """The statistics are those that the model tells, to which the training script gives the data's."""
    data = load_images("synthetic")
    model, _ = settled(create_model("timm/small_resnet8", 10, mean=data.mean, std=data.std))
    images = [data.test.images[number] for number in range(3)]
    look = look_at(model, images, data)
    views = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    with torch.no_grad():
        probabilities = model((views - mean) / std).logits.softmax(1)
    torch.testing.assert_close(look.views, views)
    torch.testing.assert_close(look.probabilities, probabilities.max(1).values)
    assert look.predicted.tolist() == probabilities.argmax(1).tolist()
    assert look.maps.shape == (3, 8, 8)


def test_classes_that_are_not_the_datas_and_channels_that_are_made():
    data = load_images("synthetic")
    images = [data.test.images[0]]
    with pytest.raises(ValueError, match=r"3 classes and dataset synthetic .* has 10"):
        look_at(create_model("timm/small_resnet8", 3), images, data)
    grey = look_at(create_model("timm/small_resnet8", 10, channels=1), images, data)  # as --channels 1 trains it
    assert grey.views.shape == (1, 1, 32, 32)


def look(predicted, probabilities) -> Look:
    return Look(random(2, 3, 16, 16).sigmoid(), random(2, 4, 4), torch.tensor(predicted), torch.tensor(probabilities))


def test_the_picture_shows_every_run_and_image():
    images = [Image.new("L", (20, 10), 90), Image.new("RGB", (16, 16), "red")]
    runs = {"vanilla": look([0, 1], [0.25, 1.0]), "logitmix": look([2, 2], [0.5, 0.999])}
    figure = draw_maps(images, [0, 2], runs, ["cat", "dog", "a very long name of a bird"])
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook asks for
    *panels, bar = figure.axes
    assert len(panels) == 3 * 2
    assert [panel.get_title() for panel in panels] == [
        *("cat", "a very long name of…"),
        *("✓ cat 0.25", "✗ dog 1.00"),
        *("✗ a very long… 0.50", "✓ a very long… 1.00"),
    ]
    colours = [panel.title.get_color() for panel in panels[2:]]
    assert colours[0] == colours[3] != colours[1] == colours[2]
    assert [panels[2].get_ylabel(), panels[4].get_ylabel()] == ["vanilla", "logitmix"]
    assert bar.get_ylabel() == "evidence"
    assert panels[0].images[0].get_array().shape == (10, 20, 3)
    for panel, expected in zip(panels[2:4], runs["vanilla"].maps, strict=True):
        under, heat = panel.images
        assert under.get_array().shape == heat.get_array().shape == (16, 16)
        enlarged = F.interpolate(expected[None, None], (16, 16), mode="bilinear")[0, 0]
        assert np.asarray(heat.get_array()) == pytest.approx(enlarged.numpy(), abs=1e-6)
        assert heat.get_clim() == pytest.approx((enlarged.min().item(), enlarged.max().item()))


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="0 images and 1 runs"):
        draw_maps([], [], {"run": look([0, 1], [0.5, 0.5])}, ["cat", "dog"])
    with pytest.raises(ValueError, match="1 images and 0 runs"):
        draw_maps([Image.new("L", (8, 8))], [0], {}, ["cat", "dog"])


def test_images_of_different_classes_are_chosen():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 20)
    for count in (1, 2, 3, 6, 9, 40):
        chosen = choose(labels, count, seed=0)
        assert len(set(chosen)) == count
        assert len(set(labels[chosen])) == min(count, 3)
    assert np.bincount(labels[choose(labels, 9, seed=0)]).tolist() == [3, 3, 3]
    assert choose(labels, 3, seed=0) == choose(labels, 3, seed=0) != choose(labels, 3, seed=1)
    for count in (0, 74):
        with pytest.raises(ValueError, match=f"images={count}: pass a number from 1 to 73"):
            choose(labels, count, seed=0)


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Untrained models, as runs leave them."""
    folder = tmp_path_factory.mktemp("runs")
    data = load_images("synthetic")
    for name, model in {
        "vanilla": create_model("timm/small_resnet8", 10, label_names=data.label_names, image_size=32),
        "logitmix": create_model("timm/small_resnet8", 10, label_names=data.label_names, image_size=32),
        "lenet": create_model("timm/small_lenet", 10, image_size=32),
        "three": create_model("timm/small_resnet8", 3, image_size=32),
        "again/vanilla": create_model("timm/small_resnet8", 10, image_size=32),
    }.items():
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _drawn_once(monkeypatch):
    monkeypatch.setattr(cam, "load_images", load_images)


def spied(monkeypatch) -> SimpleNamespace:
    """Keeps the figure that the command draws."""
    seen = SimpleNamespace()

    def keep(*args):
        seen.figure = draw_maps(*args)
        return seen.figure

    monkeypatch.setattr(cam, "draw_maps", keep)
    return seen


def test_the_command_makes_a_picture(runs, tmp_path, monkeypatch, capsys):
    seen, output = spied(monkeypatch), tmp_path / "cam.png"
    options = ["--dataset", "synthetic", "--output", str(output), "--images", "3"]
    assert main([str(runs / "vanilla"), str(runs / "logitmix"), *options]) == 0
    assert str(output) in capsys.readouterr().out
    panels = seen.figure.axes[:-1]
    assert len(panels) == 3 * 3
    names = [panel.get_title() for panel in panels[:3]]
    assert len(set(names)) == 3
    assert set(names) <= set(load_images("synthetic").label_names)
    assert [panels[3].get_ylabel(), panels[6].get_ylabel()] == ["vanilla", "logitmix"]
    assert all(panel.get_title()[0] in "✓✗" for panel in panels[3:])
    with Image.open(output) as picture:
        assert np.asarray(picture.convert("RGB")).std() > 10


def test_runs_of_one_name_are_told_apart(runs, tmp_path, monkeypatch):
    seen = spied(monkeypatch)
    monkeypatch.chdir(runs)
    options = ["--dataset", "synthetic", "--output", str(tmp_path / "cam.png"), "--images", "1"]
    assert main(["vanilla", "again/vanilla", *options]) == 0
    assert [panel.get_ylabel() for panel in seen.figure.axes[1:3]] == ["vanilla", "again/vanilla"]


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("nothing", [], r"nothing holds no model: pass an output_dir of hf-logitmix images\."),
        ("three", [], r"three: it has 3 classes and dataset synthetic .* has 10"),
        ("lenet", [], r"lenet: SmallNet has no feature map of several places"),
        ("vanilla", ["--images", "501"], r"images=501: pass a number from 1 to 500"),
        ("vanilla", ["--dataset", "neither"], r"dataset='neither' is not known"),
    ],
)
def test_what_the_command_refuses(runs, tmp_path, run, options, message):
    output = tmp_path / "cam.png"
    arguments = [str(runs / run), "--dataset", "synthetic", "--output", str(output), *options]
    with pytest.raises(SystemExit, match=rf"^hf-logitmix cam: .*{message}"):
        exit_with(lambda: main(arguments), "hf-logitmix cam")
    assert not output.exists()
