"""Imports run one way: kernels <- cortex <- training, serving. Nothing else imports serving."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[2]

# What each layer may import from the others.
_LAYERS = {
    "kernels": {"tools"},
    "cortex": {"kernels", "tools"},
    "training": {"cortex", "kernels", "tools"},
    "serving": {"cortex", "kernels", "tools", "training"},
    "tools": set[str](),
}


def _imported(path: pathlib.Path) -> set[str]:
    """The first part of each module that a file imports."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or ".")
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("layer", _LAYERS)
def test_imports_run_one_way(layer: str) -> None:
    forbidden = set(_LAYERS) - _LAYERS[layer] - {layer}
    found = {
        str(path.relative_to(_ROOT)): sorted(_imported(path) & forbidden)
        for path in (_ROOT / layer).rglob("*.py")
    }
    assert {path: modules for path, modules in found.items() if modules} == {}


def test_packages_are_namespaces() -> None:
    files = (path for layer in _LAYERS for path in (_ROOT / layer).rglob("__init__.py"))
    assert list(files) == []
