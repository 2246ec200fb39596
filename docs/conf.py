"""How the pages are built: `make docs`. What stands on them is in the *.md beside this file, and in the code."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import ups_kit

project = "ups_kit"
author = "the authors of ups_kit"
release = version = ups_kit.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "written",
    "docstrings",
    "mathml",
]
exclude_patterns = ["_build", "_extensions", "_examples"]
nitpicky = True
# Types in signatures that have no page here: other libraries cannot be looked up without a network.
nitpick_ignore_regex = [(r"py:.*", r".*")]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_fence_as_directive = ["math"]  # ```math, as GitHub writes it
myst_heading_anchors = 4
default_role = "code"
smartquotes = False  # what is typed stands as it is typed: --from

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
toc_object_entries = False

html_theme = "furo"
html_title = "ups_kit"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
pygments_style = "tango"
pygments_dark_style = "github-dark"
