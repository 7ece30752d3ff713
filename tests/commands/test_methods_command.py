"""`hf-logitmix methods`: every method, part, option and paper is there, in words."""

import re

import pytest

from hf_logitmix import METHODS
from hf_logitmix.commands.methods import in_words, main, page
from hf_logitmix.training.arguments import METHOD_OPTIONS

PARTS = {type(part): part for method in METHODS.values() for part in method.parts.values()}


def test_the_list_has_a_line_for_each_method(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(METHODS)]] == list(METHODS)
    assert "mixup            RandomPairs(lam=Beta(0.4)), Linear(), Mixed(), OneHot()" in lines


@pytest.mark.parametrize("name", METHODS)
def test_a_page_has_every_option_and_paper(name):
    text, method = page(name), METHODS[name]
    shown = re.findall(r"^  (?:--)?(\w+) ", text.split("\nOptions ")[1].split("\nPapers")[0], flags=re.MULTILINE)
    assert set(method.options) - {"targets"} <= set(shown) | ({"criterion"} if method.criterion else set())
    on_command_lines = re.findall(r"^  --(\w+) ", text, flags=re.MULTILINE)
    assert set(on_command_lines) <= set(METHOD_OPTIONS)
    assert all(paper.url in text for paper in method.papers)


def test_a_page_tells_defaults_of_the_method():
    text = page("logitmix_c")
    assert re.search(r"^  --weights .*\[\(1\.0, 1\.0, 0\.1\)\]$", text, flags=re.MULTILINE)
    assert "Page: docs/methods/logitmix_c.md" in text
    assert "Page: docs/methods/logitmix.md" in page("logitmix_m")


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_a_part_is_told_in_words(kind):
    text = in_words(PARTS[kind])
    assert len(text) > 25
    assert not re.search(r"[\\`]|:math:|::", text)
