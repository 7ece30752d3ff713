"""A Hub of this machine, in the place of the real one."""

from __future__ import annotations

import huggingface_hub
import pytest
import transformers

from helpers.loopback_hub import LoopbackHub


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # whose server is another one
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", running.url)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
        yield running
