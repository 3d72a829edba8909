"""The libraries that are measured, each used as its documentation says.

A module here is one of them: the program that somebody would write with it, whose token lives in
a file.  It has two functions: ``store(case, token)`` puts a token response where the program finds
it, and ``sender(case)`` reads it and returns a function that sends a request.
"""

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import requests

# Or these refuse addresses of plain http.  For all contenders: requests reads all variables with
# each request.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

CLIENT = {"client_id": "client", "client_secret": "secret"}

Send = Callable[..., requests.Response]
"""Of a method, an URL, and what :func:`requests.request` takes besides."""


class Case(NamedTuple):
    """Where a program works."""

    api: str
    token_url: str
    path: str
    """Of the file in which the token lives."""

    def load(self) -> Any:
        """What is in the file, for those whose library leaves that to them."""
        return json.loads(Path(self.path).read_text(encoding="utf-8"))

    def save(self, content: Any) -> None:
        Path(self.path).write_text(json.dumps(content), encoding="utf-8")


class Contender(Protocol):
    """A module of this package."""

    def store(self, case: Case, token: dict[str, Any]) -> None: ...
    def sender(self, case: Case, **options: Any) -> Send: ...


class Name(NamedTuple):
    """What a contender is called, and which distribution it comes from."""

    shown: str
    distribution: str


PLAIN = "plain"
OURS = "tokenadapter"
NAMES = {
    PLAIN: Name("plain requests", "requests"),
    "by_hand": Name("401 decorator by hand", "requests"),
    OURS: Name("tokenadapter", "tokenadapter"),
    "authlib": Name("Authlib", "Authlib"),
    "google_auth": Name("google-auth", "google-auth"),
    "msal": Name("msal", "msal"),
    "requests_auth": Name("requests-auth", "requests-auth"),
    "requests_oauth2client": Name("requests_oauth2client", "requests_oauth2client"),
    "requests_oauthlib": Name("requests-oauthlib", "requests-oauthlib"),
}


def contender(name: str) -> Contender:
    """The module of that name.

    :raises ImportError: if its library is not installed.
    """
    return importlib.import_module(f"{__name__}.{name}")  # type: ignore[return-value]


def title(name: str) -> str:
    """What a contender is called in tables; any other name as it is."""
    return NAMES[name].shown if name in NAMES else name


def installed() -> list[str]:
    """The contenders that are there: plain requests first, then who was asked to be compared."""
    return [name for name in NAMES if _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        contender(name)
    except ImportError:
        return False
    return True
