"""How Sphinx builds the documentation: ``tox -e docs`` writes it to docs/_build/html."""

import builtins
import re
import sys

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform

import tokenadapter
from tokenadapter import events, testing

project = "tokenadapter"
author = "The tokenadapter authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx requires this name
release = tokenadapter.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "smartquotes"]
myst_heading_anchors = 3

# A copied session runs: without prompts and output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# SDKs that are too large for this: their classes are documented without them.
autodoc_mock_imports = ["botocore", "databricks", "kiota_abstractions", "pyiceberg"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

# Every reference must resolve.  References to other projects cannot be checked here, because the
# build does not use the network; references to our own names can.
nitpicky = True
_others = {*dir(builtins), *sys.stdlib_module_names, "requests", "sqlalchemy", "urllib3"}
_others |= {"azure", "botocore", "google"}
# Bare names in signatures: names of requests, and names for types that are explained where they
# are used.
_bare = {"BaseAdapter", "PreparedRequest", "RequestException", "Response"}
_bare |= {"HTTPConnectionPool", "PoolManager", "Session"}
_bare |= {"Runtime", "OAuth2Options", "Scalar"}
_bare |= {"CommonOptions", "KeyLike", "Place", "Proof"}
_bare |= {"Context"}  # of contextvars
_bare |= {"Engine", "URL"}  # of SQLAlchemy
_bare |= {"ImproperlyConfigured"}  # of Django
_bare |= {"Key", "Lend", "_Loaded"}
_bare |= {"_AzureTokenCredential"}
nitpick_ignore_regex = [("py:.*", rf"({'|'.join(_others)})(\..*)?|{'|'.join(_bare)}")]

html_theme = "furo"
html_title = f"tokenadapter {release}"


PLACES = {
    name: f"{module.__name__}.{name}"
    for module in (events, testing, tokenadapter)
    for name in module.__all__
}


class LinkPublicNames(SphinxTransform):
    """Link code such as ``FileStore`` or ``TokenKeeper.adopt()`` to the reference.

    The pages stay plain Markdown, which the code host shows as well.
    """

    default_priority = 210
    # A function has its parentheses: ``session`` alone is mostly a variable.
    _NAME = re.compile(r"(?P<class>[A-Z]\w+)(?P<member>(\.\w+)*)(\(\))?|(?P<function>[a-z]\w+)\(\)")

    def apply(self, **kwargs: object) -> None:
        for literal in [*self.document.findall(nodes.literal)]:
            match = self._NAME.fullmatch(literal.astext())
            place = match and PLACES.get(match["class"] or match["function"])
            if match is None or place is None:
                continue
            if isinstance(literal.parent, nodes.reference | nodes.title | addnodes.pending_xref):
                continue
            link = addnodes.pending_xref(
                "",
                literal.deepcopy(),
                refdoc=self.env.docname,
                refdomain="py",
                reftype="obj",
                reftarget=place + (match["member"] or ""),
                refexplicit=True,
                is_code=True,
            )
            literal.replace_self(link)


def keep_code(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, code: nodes.TextElement
) -> nodes.TextElement | None:
    """Leave code as it is if the reference does not have it."""
    return code if node.get("is_code") else None


def setup(app: Sphinx) -> None:
    """Add what is defined here to Sphinx."""
    app.add_transform(LinkPublicNames)
    app.connect("missing-reference", keep_code)
