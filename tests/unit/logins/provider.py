"""An authorization server over HTTPS, as a process: django-oauth-toolkit.

Users log in by the header ``X-User``.  It serves until its standard input ends, and prints a line
when it is ready.

    python provider.py FOLDER PORT

``FOLDER`` is for the database and for ``ca.pem``, with which clients trust it.
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import django
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings

FOLDER, PORT = Path(sys.argv[1]), int(sys.argv[2])
URL = f"https://127.0.0.1:{PORT}"

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    MIGRATION_MODULES=dict.fromkeys(["auth", "contenttypes", "oauth2_provider"]),
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "provider.sqlite3"}
    },
    OAUTH2_PROVIDER={
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "PKCE_REQUIRED": True,
        "OAUTH2_VALIDATOR_CLASS": f"{__name__}.Validator",
        "SCOPES": {"read": "Read", "openid": "Name"},
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": rsa.generate_private_key(65537, 2048)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
        "DCR_ENABLED": True,
        "DCR_REGISTRATION_PERMISSION_CLASSES": ("oauth2_provider.dcr.AllowAllDCRPermission",),
        "OAUTH2_PROTECTED_RESOURCE_IDENTIFIER": f"{URL}/api/",
        "OIDC_ISS_ENDPOINT": f"{URL}/o",
        "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
        "OAUTH_DEVICE_VERIFICATION_URI": f"{URL}/o/device/",
        "DEVICE_FLOW_INTERVAL": 1,
    },
    # The page on which a person in a browser consents.
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", f"{__name__}.users"],
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "loggers": {name: {"level": "ERROR"} for name in ["django.request", "django.server"]},
    },
)


def users(answer: Callable[..., object]) -> Callable[..., object]:
    """The middleware that knows the users."""

    def middleware(request):
        from django.contrib.auth.models import AnonymousUser, User

        name = request.headers.get("X-User")
        request.user = User.objects.get_or_create(username=name)[0] if name else AnonymousUser()
        return answer(request)

    return middleware


django.setup()

from django.core.management import call_command  # noqa: E402  (Django must know its settings first)
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.decorators import protected_resource  # noqa: E402
from oauth2_provider.models import Application, DeviceCodeResponse, DeviceGrant  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402
from oauth2_provider.views import OAuthServerMetadataView, device  # noqa: E402
from oauthlib.oauth2.rfc8628.grant_types.device_code import DeviceCodeGrant  # noqa: E402

# What it lacks for version 4 of oauthlib: a field, and the look-up of a device code.
device.DeviceCodeResponse = lambda scope="", **fields: DeviceCodeResponse(**fields)


class Validator(OAuth2Validator):
    def validate_device_code(self, client_id, code, request, *args, **kwargs):
        grant = DeviceGrant.objects.filter(client_id=client_id, device_code=code).first()
        if grant is None or grant.status != grant.AUTHORIZED:
            return None
        request.user, request.scopes = grant.user, grant.scope.split()
        return DeviceCodeGrant.DEVICE_CODE_AUTHORIZED


@protected_resource(["read"], Validator, advertise_metadata=True)
def api(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"Hello, {request.resource_owner.username}")


urlpatterns = [
    path("api/", api),
    path(".well-known/oauth-authorization-server/o", OAuthServerMetadataView.as_view()),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]


class Handler(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)
    for name, grant in (
        ("app", Application.GRANT_AUTHORIZATION_CODE),
        ("device", Application.GRANT_DEVICE_CODE),
    ):
        Application.objects.create(
            client_id=name,
            client_secret="",
            client_type=Application.CLIENT_PUBLIC,
            authorization_grant_type=grant,
            redirect_uris="http://127.0.0.1/",
            algorithm=Application.RS256_ALGORITHM,
        )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(FOLDER / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadedWSGIServer(("127.0.0.1", PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.base_environ["HTTPS"] = "on"
    server.set_app(get_wsgi_application())
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
