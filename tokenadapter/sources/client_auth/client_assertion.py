"""An assertion that a platform hands out (RFC 7521 section 4.2): workload identity."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tokenadapter.sources.assertions import with_client_assertion
from tokenadapter.sources.given_token import GivenToken, Place

__all__ = ["ClientAssertion"]


class ClientAssertion:
    """Authenticates a client by an assertion of the platform on which the program runs.

    ::

        ClientCredentials(token_url, client_id="…", client_auth=ClientAssertion(
            "/var/run/secrets/azure/tokens/azure-identity-token"))

    The platform keeps the assertion fresh, so it is read for each request.

    :param assertion: the path of a file with nothing but the assertion, or a function without
        arguments that returns it.
    :raises TypeError: if *assertion* is neither.
    :raises ValueError: if *assertion* is itself an assertion, and not the path of one.
    """

    def __init__(self, assertion: Place) -> None:
        self._assertion = GivenToken("assertion", assertion)

    @property
    def credential(self) -> str:
        """Where the assertion is from."""
        return self._assertion.identity

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        """Add the current assertion to the form.

        :raises ValueError: if there is none.
        """
        return with_client_assertion(form, client_id, self._assertion.read())
