"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

from typing import Any

import bsym_sklearn

project = "bsym_sklearn"
author = "bsym_sklearn developers"
project_copyright = f"2026, {author}"
version = release = bsym_sklearn.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings say shapes, which types cannot
numpydoc_show_class_members = False  # the class template lists them
html_theme = "furo"
html_title = f"bsym_sklearn {release}"


def skip_foreign_member(
    app: object, what: str, name: str, member: Any, skip: bool, options: object
) -> bool:
    """Leave out what a class inherits from scikit-learn or PyTorch."""
    function = getattr(member, "fget", None) or member
    module = getattr(function, "__module__", None) or "bsym_sklearn"
    return skip or not module.startswith("bsym_sklearn")


def setup(app: Any) -> None:
    """Connect the hook above."""
    app.connect("autodoc-skip-member", skip_foreign_member)
