"""kubectl and other programs of client-go: an ``ExecCredential`` of client.authentication.k8s.io.

https://kubernetes.io/docs/reference/config-api/client-authentication.v1/ describes both objects:
the one in the environment, and the answer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenadapter.config.problems import ProfileError

if TYPE_CHECKING:
    from tokenadapter.cli.helper import Call, Guard

__all__ = ["WORDS", "answer"]

WORDS: int = 0
"""How many words the program appends to the command."""

_GROUP = "client.authentication.k8s.io/"


def answer(call: Call, guard: Guard) -> tuple[str, int]:
    """Answer one call."""
    version, server = _asked(call.environment.get("KUBERNETES_EXEC_INFO", ""))
    if server is None:
        raise ProfileError(
            "kubectl does not say which cluster the token is for. Nothing was sent. Set "
            "`provideClusterInfo: true` below `exec` in the kubeconfig."
        )
    issued = guard.required_token(server)
    status = {"token": issued.access_token}
    if issued.rfc3339 is not None:
        status["expirationTimestamp"] = issued.rfc3339
    credential = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    return json.dumps(credential), 0


def _asked(text: str) -> tuple[str, str | None]:
    """The version that the program speaks, and the URL of its cluster."""
    try:
        info: Any = json.loads(text or "{}")
        version = info.get("apiVersion", f"{_GROUP}v1")
        server = info.get("spec", {}).get("cluster", {}).get("server")
    except (AttributeError, ValueError, RecursionError):
        version = server = None
    if not (isinstance(version, str) and version.startswith(_GROUP)):
        raise ProfileError(
            "KUBERNETES_EXEC_INFO is not an ExecCredential of client.authentication.k8s.io. "
            "Nothing was sent. Let kubectl call this command."
        )
    return version, server if isinstance(server, str) else None
