"""A browser that decides: it opens the page of a login, and approves or denies.

``python -m tokenadapter.testing.browser URL [USER]`` is the same as a program, for the environment
variable ``BROWSER`` of a program under test.
"""

from __future__ import annotations

import re
import ssl
import sys
import threading
from collections.abc import Callable
from html import unescape
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPSHandler, ProxyHandler, build_opener


class Browser:
    """Opens URLs in a thread of its own, as :func:`webbrowser.open` does in a browser.

    At a page of :class:`~tokenadapter.testing.TokenServer` that asks for a decision, it decides and
    follows the redirect back to the client.

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
        self._opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
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
        status, text = self._page(url)
        link = re.search(rf'href="([^"]*decision={self._decision}[^"]*)"', text)
        if link is not None:
            target = urljoin(url, unescape(link[1]))
            if self._user is not None:
                target += f"&{urlencode({'user': self._user})}"
            status, text = self._page(target)
        self.pages.append((status, text))
        return status, text

    def join(self, timeout: float = 10.0) -> None:
        """Wait until all pages are read."""
        for thread in self._threads:
            thread.join(timeout)

    def _page(self, url: str) -> tuple[int, str]:
        open_url: Callable[..., object] = self._opener.open
        try:
            response = open_url(url, timeout=30)
        except HTTPError as error:
            response = error
        with response:  # type: ignore[attr-defined]
            return response.status, response.read().decode("utf-8", "replace")  # type: ignore[attr-defined]


def _main(url: str, user: str | None = None) -> bool:
    return Browser(user=user).visit(url)[0] >= 400


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
