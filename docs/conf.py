"""Sphinx configuration. Nothing is fetched from the network during a build."""

import importlib.metadata
import importlib.util
import os
import re

os.environ["PYTHONWARNINGS"] = "ignore:IProgress"  # tqdm, about widgets that are not needed
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same numbers on every machine

project = "latentdyn"
author = "The latentdyn developers"
copyright = "the latentdyn developers"
version = release = importlib.metadata.version("latentdyn")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
# with this package equations need no network in the reader's browser either
if importlib.util.find_spec("sphinx-mathjax-offline"):
    extensions.append("sphinx-mathjax-offline")

exclude_patterns = ["_build", "jupyter_execute", "results"]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["custom.css"]
default_role = "py:obj"
smartquotes_action = "D"  # dashes, but z' is a symbol

autosummary_generate = True
# some file systems do not tell it from smooth.Smoother
autosummary_filename_map = {"latentdyn.smooth.smoother": "latentdyn.smooth.smoother-decorator"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 100
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove-warn"  # a warning in a notebook fails the build


def plain(app, what, name, obj, options, lines):
    """Docstrings write mathematics in plain text: there, * and | are no markup."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "- ")):
            line = re.sub(r"(^|: )([A-Z])\.$", r"\1\\\2.", line)  # "K." begins no list
            parts = re.split(r"(``.*?``|`.*?`)", line)
            parts[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def tight(app, docname, source):
    """Doctests end in an empty line, which need not be shown."""
    source[0] = re.sub(r"\n\n```(?=\n|$)", "\n```", source[0])


def setup(app):
    app.connect("source-read", tight)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon


html_theme = "pydata_sphinx_theme"
html_title = "latentdyn"
html_theme_options = {
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
}
html_sidebars = {"**": []}
html_show_sourcelink = False
html_copy_source = False
