"""`MixTrainer` takes what `transformers.Trainer` takes, by the same names, in the same order, and our two options."""

import inspect

import pytest
from transformers import Trainer

from hf_logitmix import MixTrainer


def parameters(kind):
    return {name: (p.kind, p.default) for name, p in inspect.signature(kind.__init__).parameters.items()}


def test_the_parameters_are_those_of_the_installed_trainer_and_ours():
    ours = parameters(MixTrainer)
    own = {name: ours.pop(name) for name in ("method", "rehearse")}
    assert list(ours.items()) == list(parameters(Trainer).items())
    assert own == dict.fromkeys(own, (inspect.Parameter.KEYWORD_ONLY, None))


def test_each_parameter_reaches_the_trainer(monkeypatch):
    given = {name: object() for name in parameters(MixTrainer) if name != "self"}
    seen = {}
    monkeypatch.setattr(MixTrainer.__mro__[1], "__init__", lambda self, **kwargs: seen.update(kwargs))
    MixTrainer(**given)
    assert seen == given


def test_a_misspelled_parameter_is_an_error_that_names_it():
    with pytest.raises(TypeError, match=r"MixTrainer\.__init__\(\) got an unexpected keyword argument 'mdoel'"):
        MixTrainer(mdoel=None)
