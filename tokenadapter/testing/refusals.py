"""What the endpoints of the test server refuse, and how they say so."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Refused", "required"]


class Refused(Exception):
    """An error answer of the token endpoint (RFC 6749 section 5.2)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error, description)
        self.error = error
        self.description = description
        self.status = status


def required(form: Mapping[str, str], name: str) -> str:
    """The parameter *name*."""
    if name not in form:
        raise Refused("invalid_request", f"{name} is missing")
    return form[name]
