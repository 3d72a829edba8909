"""The answer of each endpoint to a request, without the network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl

from tokenadapter.keys.jws import ALGORITHMS

from .authority import Authority, basic
from .dpop import Proofs
from .refusals import Refused
from .report import Request
from .wire import Answer, json_answer

_METADATA = "/.well-known/oauth-authorization-server"  # RFC 8414 section 3
_OPENID = "/.well-known/openid-configuration"
_RESOURCE = "/.well-known/oauth-protected-resource"  # RFC 9728 section 3
_POSTED = ("token", "login", "revoke", "register", "device_authorization")
_OPENED = ("authorize", "device")
_NOT_CACHED = {"Cache-Control": "no-store"}  # RFC 6749 section 5.1


def endpoint_of(path: str) -> str:
    """The endpoint of a path, or ``""``."""
    if path.startswith("/api/"):
        return "api"
    if path.startswith("/public/"):
        return "public"
    if path.startswith(_METADATA) or path.endswith(_OPENID):
        return "metadata"
    if path.startswith(_RESOURCE):
        return "resource_metadata"
    return path[1:] if path[1:] in (*_POSTED, *_OPENED) else ""


class Endpoints:
    """The endpoints of an authority, with their counters.

    Without locks: the server calls it from one thread at a time.
    """

    def __init__(
        self,
        authority: Authority,
        header: str,
        scheme: str,
        issuer: Callable[[], str],
        proofs: Proofs | None,
    ) -> None:
        self._authority = authority
        self._proofs = proofs
        self._issuer = issuer
        self._header = header.lower()
        self._scheme = scheme.lower()
        self.metadata: dict[str, Any] = {}
        self.resource_metadata: dict[str, Any] = {}
        self.token_requests: int = 0
        self.refusals: int = 0
        self.api_requests: int = 0
        self.api_refused: int = 0

    def arrived(self, endpoint: str) -> None:
        """Count a request, whatever its outcome."""
        self.token_requests += endpoint in ("token", "login")
        self.api_requests += endpoint == "api"

    def answer(self, endpoint: str, request: Request) -> Answer:
        """Process a request."""
        answer = self._answer(endpoint, request)
        if self._proofs is None or endpoint not in ("api", "token"):
            return answer
        return answer._replace(headers={**self._proofs.headers(endpoint), **answer.headers})

    def _answer(self, endpoint: str, request: Request) -> Answer:
        match endpoint:
            case "api":
                return self._api(request)
            case "public":
                return self._echo(request)
            case "metadata":
                return self._metadata(request)
            case "resource_metadata":
                return self._resource_metadata(request)
            case _ if endpoint in _POSTED and request.method != "POST":
                return json_answer(405, {"error": "invalid_request"}, {"Allow": "POST"})
            case "token":
                return self._token(request)
            case "login":
                return self._login(request)
            case "revoke":
                return self._revoke(request)
            case "register":
                return self._register(request)
            case "authorize":
                asked = dict(parse_qsl(request.query))
                return self._authority.logins.authorize(asked, self._issuer())
            case "device":
                return self._authority.logins.device_page(dict(parse_qsl(request.query)))
            case "device_authorization":
                return self._device_authorization(request)
            case _:
                return json_answer(404, {"error": "not_found"})

    @property
    def audiences(self) -> tuple[str, ...]:
        """What an assertion may call the server."""
        url = self._issuer()
        return url, f"{url}/token", f"{url}/revoke", f"{url}/device_authorization"

    def _metadata(self, request: Request) -> Answer:
        """Every path of the server is an issuer."""
        url = self._issuer()
        usual = {
            "issuer": url + request.path.removeprefix(_METADATA).removesuffix(_OPENID),
            "token_endpoint": f"{url}/token",
            "revocation_endpoint": f"{url}/revoke",
            "authorization_endpoint": f"{url}/authorize",
            "device_authorization_endpoint": f"{url}/device_authorization",
            "registration_endpoint": f"{url}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "token_endpoint_auth_methods_supported": [
                "client_secret_basic",
                "client_secret_post",
                "client_secret_jwt",
                "private_key_jwt",
                "tls_client_auth",
                "self_signed_tls_client_auth",
                "none",
            ],
            **self._proving(),
        }
        return _described(usual, self.metadata)

    def _resource_metadata(self, request: Request) -> Answer:
        """Every path of the server is a protected resource (RFC 9728)."""
        url = self._issuer()
        usual = {
            "resource": url + request.path.removeprefix(_RESOURCE),
            "authorization_servers": [url],
            **self._proving(dpop_bound_access_tokens_required=True),
        }
        return _described(usual, self.resource_metadata)

    def _proving(self, **members: Any) -> dict[str, Any]:
        """What metadata says of proofs, with more *members*, if the server wants them."""
        if self._proofs is None:
            return {}
        return {"dpop_signing_alg_values_supported": list(ALGORITHMS), **members}

    def _token(self, request: Request) -> Answer:
        try:
            client = self._client(request)
            thumbprint = None
            if self._proofs is not None:
                url = self._issuer() + request.path
                thumbprint = self._proofs.verified(request, url, "token")
            with self._authority.binding_to(thumbprint):
                response = self._authority.token(client, request.form)
            return json_answer(200, response, _NOT_CACHED)
        except Refused as refusal:
            self.refusals += 1
            return _refusal(refusal)

    def _login(self, request: Request) -> Answer:
        try:
            user, password = _who_logs_in(request)
            return json_answer(200, self._authority.login(user, password), _NOT_CACHED)
        except Refused as refusal:
            self.refusals += 1
            return json_answer(refusal.status, _explained(refusal), _NOT_CACHED)

    def _revoke(self, request: Request) -> Answer:
        """RFC 7009: an unknown token counts as revoked (section 2.2)."""
        try:
            self._client(request)
            self._authority.revoke(request.form.get("token", ""))
            return Answer(200)
        except Refused as refusal:
            return _refusal(refusal)

    def _register(self, request: Request) -> Answer:
        """RFC 7591 section 3."""
        try:
            said = _json(request, "invalid_client_metadata")
            return json_answer(201, self._authority.register(said), _NOT_CACHED)
        except Refused as refusal:
            return _refusal(refusal)

    def _device_authorization(self, request: Request) -> Answer:
        try:
            client = self._client(request)
        except Refused as refusal:
            return _refusal(refusal)
        response = self._authority.logins.begin_device(
            client, request.form.get("scope"), f"{self._issuer()}/device"
        )
        return json_answer(200, response, _NOT_CACHED)

    def _client(self, request: Request) -> str:
        return self._authority.authenticate(
            request.headers.get("authorization"), request.form, request.certificate
        )

    def _api(self, request: Request) -> Answer:
        scheme, token = self._credentials(request.headers.get(self._header, ""))
        if self._proofs is not None:
            return self._proven_api(request, scheme, token, self._proofs)
        if scheme.lower() != self._scheme or not self._authority.accepts(
            token, request.certificate
        ):
            self.api_refused += 1
            # An error code is only for those who tried (RFC 6750 section 3.1).
            challenge = 'Bearer error="invalid_token"' if token else 'Bearer realm="api"'
            return self._unauthorized("invalid_token" if token else "unauthorized", challenge)
        return self._echo(request)

    def _proven_api(self, request: Request, scheme: str, token: str, proofs: Proofs) -> Answer:
        """The API that requires proofs (RFC 9449 section 7)."""
        error = "invalid_token" if token else None
        if scheme.lower() == "dpop":
            try:
                url = self._issuer() + request.path
                thumbprint = proofs.verified(request, url, "api", token)
                if self._authority.accepts(token, request.certificate, thumbprint):
                    return self._echo(request)
            except Refused as refusal:
                error = refusal.error
        self.api_refused += error in (None, "invalid_token")
        challenge = f'DPoP algs="{" ".join(ALGORITHMS)}"' + (f', error="{error}"' if error else "")
        return self._unauthorized(error, challenge)

    def _unauthorized(self, error: str | None, challenge: str) -> Answer:
        challenge += f', resource_metadata="{self._issuer()}{_RESOURCE}/api/"'
        return json_answer(401, {"error": error}, {"WWW-Authenticate": challenge})

    def _echo(self, request: Request) -> Answer:
        requested = parse_qs(request.query)
        if request.path.endswith("/redirect") and "to" in requested:
            return Answer(
                int(requested.get("status", ["302"])[0]), b"", {"Location": requested["to"][0]}
            )
        content = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": {name: self._shown(name, text) for name, text in request.headers.items()},
            "length": request.length,
            "sha256": request.sha256,
            "count": self.api_requests,
        }
        return json_answer(200, content)

    def _credentials(self, header: str) -> tuple[str, str]:
        if not self._scheme:
            return "", header
        scheme, _, token = header.partition(" ")
        return scheme, token

    def _shown(self, name: str, text: str) -> str:
        if name not in ("authorization", self._header):
            return text
        scheme, _, secret = text.rpartition(" ")
        fingerprint = hashlib.sha256(secret.encode()).hexdigest()[:8]
        return f"{scheme} {fingerprint}".lstrip()


def _json(request: Request, error: str) -> dict[str, Any]:
    """The JSON object in the body of a request."""
    try:
        said = json.loads(request.body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Refused(error, "no JSON object")
    return said


def _who_logs_in(request: Request) -> tuple[str, str]:
    """The user and the password, by HTTP Basic, in a JSON body or in a form."""
    if "authorization" in request.headers:
        return basic(request.headers["authorization"])
    fields = request.form
    if "json" in request.headers.get("content-type", ""):
        fields = _json(request, "invalid_request")
    try:
        return fields["username"], fields["password"]
    except (KeyError, TypeError):
        raise Refused("invalid_request", "username and password are asked for") from None


def _described(usual: dict[str, Any], differing: dict[str, Any]) -> Answer:
    said = {**usual, **differing}
    return json_answer(200, {name: it for name, it in said.items() if it is not None})


def _explained(refusal: Refused) -> dict[str, str]:
    return {"error": refusal.error, "error_description": refusal.description}


def _refusal(refusal: Refused) -> Answer:
    challenge = {"WWW-Authenticate": 'Basic realm="token"'} if refusal.status == 401 else {}
    return json_answer(refusal.status, _explained(refusal), {**_NOT_CACHED, **challenge})
