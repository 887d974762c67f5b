"""How Sphinx builds the site. `make docs` runs build.py, which calls Sphinx with this file."""

import sys
from pathlib import Path

import convolab

sys.path.insert(0, str(Path(__file__).parent))  # for pages.py

project = "convolab"
release = convolab.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "pages"]

# The pages are the Markdown files where they lie, so that a code host shows them too; the notebooks are read by pages.py.
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "docs/*.md",
    "docs/results/**.md",
    "notebooks/student/*.ipynb",
]
exclude_patterns = [".*", "src", "tests", "site", "build", "runs", "studies", "demo"]  # folders that need not be walked
source_suffix = {".md": "markdown", ".ipynb": "markdown"}

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"  # see pages.py: MathJax would be loaded from elsewhere

default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # pages.py writes them as they stand in the source
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
smartquotes_action = "D"  # dashes only: other quotes would be wrong in code
add_module_names = False

html_theme = "furo"
html_title = "convolab"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2a6fb0", "color-brand-content": "#2a6fb0"},
    "dark_css_variables": {"color-brand-primary": "#6db3f2", "color-brand-content": "#6db3f2"},
    "footer_icons": [],
}
