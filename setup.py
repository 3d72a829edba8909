"""The package's metadata: this is the one place where it stands."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Read, not imported: the package need not be importable for its metadata to be known.
VERSION = re.search(
    r'^__version__ = "([^"]+)"$',
    (HERE / "tokenadapter" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
)[1]

EXTRAS = {
    # For proxies at socks5:// and socks5h://, to the API and to the token endpoint.
    "socks": ["requests[socks]>=2.32.2"],
    "test": [
        "coverage>=7.10",
        "django>=5.1",
        "django-oauth-toolkit>=3.4",
        "greenlet>=3.1",
        "hypothesis>=6.130",
        "pytest>=8.4",
        "pytest-randomly>=3.16",
        "pytest-timeout>=2.4",
        "pytest-xdist>=3.6",
        "trustme>=1.2",
        # Whatever is tested beside them.
        "CacheControl>=0.14",
        "PySocks>=1.7",
        "requests-mock>=1.12",
        "requests-ratelimiter>=0.10",
        "requests-toolbelt>=1.0",
        "responses>=0.25",
        "vcrpy>=8",
    ],
    "lint": [
        "import-linter>=2.5",
        "ruff>=0.12",
    ],
    "types": [
        "mypy>=1.17",
        # The first with types of its own.
        "requests>=2.34",
        "types-cachetools",
    ],
    "docs": [
        "furo",
        "myst-parser>=4",
        "sphinx>=8.1",
    ],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})

setup(
    name="tokenadapter",
    version=VERSION,
    description="Access tokens that renew themselves, underneath any requests.Session",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The tokenadapter authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["authentication", "bearer", "http", "oauth2", "refresh-token", "requests", "token"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: Security",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["tokenadapter", "tokenadapter.*"]),
    package_data={"tokenadapter": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=[
        "cachetools>=5.3",
        # Older ones keep a dead parent's lock in a forked child, or free a live one's.
        "filelock>=3.30",
        # The first with HTTPAdapter.get_connection_with_tls_context.
        "requests>=2.32.2",
        # Older ones lose an answer that comes while the request's body is still being sent, and
        # count the characters of a text file for its bytes.
        "urllib3>=2.2.3",
    ],
    extras_require=EXTRAS,
)
