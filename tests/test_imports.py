"""No test imports another one: what tests share lies in `helpers`."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def test_no_test_module_imports_another():
    paths = {path: ast.parse(path.read_text()) for path in TESTS.rglob("*.py")}
    tests = {path.stem for path in paths if not path.is_relative_to(TESTS / "helpers")}
    imported = {
        (path.name, name)
        for path, tree in paths.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert len(tests) > 50
    assert [(path, name) for path, name in imported if tests & set(name.split("."))] == []
