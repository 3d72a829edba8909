"""How Sphinx builds the documentation: ``tox -e docs`` puts it into docs/_build/html."""

import builtins
import sys

from tokenadapter import __version__

project = "tokenadapter"
author = "The tokenadapter authors"
copyright = f"2026, {author}"  # noqa: A001 - the name that Sphinx asks for
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "smartquotes"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

# Every reference has to lead somewhere.  Those to other projects cannot be followed here, because
# a build does without the network; those to our own names can.
nitpicky = True
_others = {*dir(builtins), *sys.stdlib_module_names, "requests", "sqlalchemy", "urllib3"}
# What signatures call by its bare name: of requests, and names for types that are explained
# where they are used.
_bare = {"BaseAdapter", "PreparedRequest", "RequestException", "Response"}
_bare |= {"HTTPConnectionPool", "PoolManager", "Session"}
_bare |= {"Runtime", "OAuth2Options", "Scalar"}
_bare |= {"Engine", "URL"}  # of SQLAlchemy
_bare |= {"ImproperlyConfigured"}  # of Django
_bare |= {"Key", "Lend", "_Loaded"}
nitpick_ignore_regex = [("py:.*", rf"({'|'.join(_others)})(\..*)?|{'|'.join(_bare)}")]

html_theme = "furo"
html_title = f"tokenadapter {release}"
