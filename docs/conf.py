"""How the documentation is built: `make docs`, without the network."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import inventories  # beside this file, in _ext

import sessionfactory

logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs what it imports

project = "sessionfactory"
author = "the authors of sessionfactory"
version = release = sessionfactory.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "settings_reference",
    "short_names",
]
exclude_patterns = ["_build", "_ext", "_inventories"]
html_theme = "furo"
html_title = "sessionfactory"
html_theme_options = {"source_directory": "docs/"}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

default_role = "code"
nitpicky = True
# Built from the lists in _inventories, which hold the names that are used here.
intersphinx_mapping = inventories.build(Path(__file__).parent)
nitpick_ignore_regex = [
    # Type variables.
    ("py:.*", r"(.*\.)?_?[A-Z](_co)?"),
    # Types of the frameworks, which have sites of their own.
    ("py:.*", r"(starlette|fastapi|flask|litestar|dishka|svcs)\..*"),
    ("py:.*", r"App|Blueprint|Flask|HTTPConnection|Provider|Request|Route|Starlette|State"),
    # Types of signatures that are private, or too small for a page of their own.
    (
        "py:.*",
        r"(.*\.)?(_\w+|(Any|Sync|Async)Registry|\w+Base|Count|Make|PoolOptions|Setting|ThrowawayServer|TimelyPool|Trigger)",
    ),
]
