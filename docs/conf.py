"""How the documentation is built: `make docs`."""

import re
import sys
from enum import Enum
from pathlib import Path
from types import GenericAlias

import attrs
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from bridgepool import __version__

project = "bridgepool"
author = "The bridgepool maintainers"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # pages that start below another page's heading

html_theme = "furo"
html_title = f"bridgepool {release}"
html_copy_source = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# Docstrings name things in single backquotes; outside a role that is code.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [
    ("Cancellation", "Cancellation"),
    ("Resource handling", "Resource handling"),
]

_COLON = "\ue000"  # stands for a colon while napoleon runs


def setup(app: Sphinx) -> None:
    """Correct what autodoc and napoleon make of attributes, attrs classes and constants."""
    # Around napoleon, which has 500.
    app.connect("autodoc-process-docstring", _describe_constant, priority=300)
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)
    app.connect("autodoc-process-docstring", _restore_colons, priority=600)
    app.connect("autodoc-process-signature", _show_defaults)


def _hide_colons(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Keep napoleon from taking what stands before a colon for a type."""
    hidden = what in ("attribute", "data", "property")
    for number, line in enumerate(lines):
        if hidden:
            lines[number] = line.replace(":", _COLON)
        hidden = line.strip() == "Returns:"


def _restore_colons(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Put the colons back after napoleon."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _describe_constant(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Give a constant the text below its definition, in whatever module that is."""
    if what != "data":
        return
    place = ("", name.rpartition(".")[2])
    package = ".".join(name.split(".")[:2])
    for module in [each for each in sys.modules if each.startswith((package, "bridgepool._"))]:
        described = ModuleAnalyzer.for_module(module).find_attr_docs()
        if place in described:
            lines[:] = described[place]
            return
    if getattr(found, "__doc__", None) == getattr(type(found), "__doc__", None) or isinstance(
        found, GenericAlias
    ):
        lines.clear()  # the text is that of its class


def _show_defaults(
    app: Sphinx,
    what: str,
    name: str,
    found: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None] | None:
    """Show the defaults of an attrs class, and no arguments where nobody gives any."""
    if what != "class" or not isinstance(found, type) or not signature:
        return None
    if issubclass(found, Enum) or getattr(found, "_is_protocol", False):
        return "", returns
    if not attrs.has(found):
        return None
    defaults = {field.name: field.default for field in attrs.fields(found)}

    def show(match: re.Match[str]) -> str:
        default = defaults[match[1]]
        return "..." if callable(default) else repr(default)

    signature = re.sub(r"attr_dict\['(\w+)'\]\.default", show, signature)
    return signature.replace("= NOTHING", "= ..."), returns
