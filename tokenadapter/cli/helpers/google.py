"""Google's client libraries and gcloud: executable-sourced credentials.

https://google.aip.dev/auth/4117 describes the variables and the answer.  The libraries exchange the
token for one of Google's.  They do not say at which URL, but for which audience: the name of a
workload or workforce identity provider, without its scheme.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenadapter.config.problems import ProfileError

if TYPE_CHECKING:
    from tokenadapter.cli.helper import Call, Guard

__all__ = ["MERGES_STDERR", "WORDS", "answer"]

MERGES_STDERR: bool = True
"""What the command writes to standard error would be read as a part of the answer."""

WORDS: int = 0
"""How many words the program appends to the command."""

_LEAD = "GOOGLE_EXTERNAL_ACCOUNT_"
_TYPES = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")


def answer(call: Call, guard: Guard) -> tuple[str, int]:
    """Answer one call."""
    given = call.environment.get
    if given(f"{_LEAD}INTERACTIVE") == "1":
        raise ProfileError(
            "Google's library expects this command to log in. Nothing was sent. Run `tokenadapter "
            "login NAME`, and use the credential configuration without the interactive mode."
        )
    kind = given(f"{_LEAD}TOKEN_TYPE", _TYPES[0])
    if kind not in _TYPES:
        raise ProfileError(
            f"Google's library expects a token of the type {kind}. Nothing was sent. Set "
            f'"subject_token_type": "{_TYPES[0]}" in the credential configuration.'
        )
    issued = guard.required_token(f"https:{given(f'{_LEAD}AUDIENCE', '')}")
    found: dict[str, Any] = {"version": 1, "success": True, "token_type": kind}
    found["id_token"] = issued.access_token
    if issued.until is not None:
        found["expiration_time"] = int(issued.until)
    return json.dumps(found), 0
