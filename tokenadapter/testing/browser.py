"""A browser that decides: it opens the page of a login, and approves or denies.

``python -m tokenadapter.testing.browser URL [USER]`` is the same as a program, for the environment
variable ``BROWSER`` of a program under test.
"""

from __future__ import annotations

import re
import ssl
import sys
import threading
from html import unescape
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import (
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    build_opener,
)


class Browser:
    """Opens URLs in a thread of its own, as :func:`webbrowser.open` does in a browser.

    At a page of :class:`~tokenadapter.testing.TokenServer` that asks for a decision, it decides and
    follows the redirect back to the client.  For a client that does not listen at the address of
    the redirect, such as a web application under the test client of its framework, :meth:`decide`
    returns the address instead.

    :param approve: whether it approves; otherwise it denies.
    :param user: the user who logs in; by default the first one whom the server knows.
    :param ca_file: the certificate that an HTTPS server is verified with.
    :ivar pages: the status and the text of each page that it ended on.
    """

    def __init__(
        self, *, approve: bool = True, user: str | None = None, ca_file: str | None = None
    ) -> None:
        self._decision = "approve" if approve else "deny"
        self._user = user
        context = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
        handlers = ProxyHandler({}), HTTPSHandler(context=context)
        self._following = build_opener(*handlers)
        self._staying = build_opener(*handlers, _NoRedirects)
        self._threads: list[threading.Thread] = []
        self.pages: list[tuple[int, str]] = []

    def __call__(self, url: str) -> bool:
        """Open *url*, and return at once."""
        thread = threading.Thread(target=self.visit, args=[url], name="browser", daemon=True)
        self._threads.append(thread)
        thread.start()
        return True

    def visit(self, url: str) -> tuple[int, str]:
        """Open *url*, decide, and return the page that this ends on."""
        page = self._decided(self._following, url)
        self.pages.append((page.status, page.text))
        return page.status, page.text

    def decide(self, url: str) -> str:
        """Open *url*, decide, and return the address that the server redirects to.

        Nothing is sent to that address.

        :param url: an authorization request: what the client would open in a browser.
        :raises ValueError: if the server answers with a page instead.  The error has its text.
        """
        page = self._decided(self._staying, url)
        if page.location is None:
            text = unescape(re.sub("<[^>]*>", " ", page.text))
            raise ValueError(
                f"a page instead of a redirect: {page.status}, {' '.join(text.split())}"
            )
        return page.location

    def join(self, timeout: float = 10.0) -> None:
        """Wait until all pages are read."""
        for thread in self._threads:
            thread.join(timeout)

    def _decided(self, opener: OpenerDirector, url: str) -> _Page:
        page = _opened(opener, url)
        link = re.search(rf'href="([^"]*decision={self._decision}[^"]*)"', page.text)
        if link is None:
            return page
        target = urljoin(url, unescape(link[1]))
        if self._user is not None:
            target += f"&{urlencode({'user': self._user})}"
        return _opened(opener, target)


class _Page(NamedTuple):
    status: int
    text: str
    location: str | None
    """Where the server redirects to, if that was not followed."""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow no redirect: it is then an :class:`HTTPError`, as a refusal is."""


def _opened(opener: OpenerDirector, url: str) -> _Page:
    try:
        response = opener.open(url, timeout=30)
    except HTTPError as error:
        response = error
    with response:
        text = response.read().decode("utf-8", "replace")
        return _Page(response.status, text, response.headers["Location"])


def _main(url: str, user: str | None = None) -> bool:
    return Browser(user=user).visit(url)[0] >= 400


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
