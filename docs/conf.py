"""The documentation site: `sphinx-build -W --keep-going -n docs DIRECTORY`, with `pip install ".[docs]"`."""

import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import made  # noqa: E402

from packing_jax import __version__  # noqa: E402

_PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_REPOSITORY = _PROJECT["urls"]["Repository"]

project = "packing_jax"
author = _PROJECT["authors"][0]["name"]
copyright = author  # noqa: A001
release = version = __version__
needs_sphinx = "8.2"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["examples", "gallery/*.json"]
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tutorials are shown as they were run and committed
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_display_short_literal_types = True
python_use_unqualified_type_names = True

# Names of other packages, whose own sites are not asked while this one is built; and names of types in signatures that
# are written as the code has them, short.
nitpick_ignore_regex = made.ELSEWHERE

html_theme = "furo"
html_title = f"packing_jax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
if "OWNER" not in _REPOSITORY:  # until a maintainer has written the project's address into pyproject.toml
    html_theme_options |= {"source_repository": _REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
copybutton_prompt_text = "$ "
highlight_language = "none"  # blocks of docstrings are equations and tables
pygments_style = "friendly"
pygments_dark_style = "native"

made.write_pages(HERE)


def setup(app: Any) -> None:
    """Docstrings are plain text, and sphinx wants reStructuredText; what else :mod:`made` mends on the way."""
    app.connect("autodoc-process-docstring", made.as_rst)
    app.connect("missing-reference", made.resolved)
    app.connect("source-read", made.links_on_the_site)
    app.connect("doctree-read", made.whole_words)
