"""An authorization server and the API it protects, as a process: django-oauth-toolkit.

The server rotates refresh tokens.  A refresh token that is presented again after its grace period
revokes its grant and all access tokens.  A rotation revokes the previous access token as well.  The
server prints its URL when it is ready, and serves until its standard input ends.

    python provider.py FOLDER LIFETIME GRACE

``FOLDER`` is for the database; the numbers are seconds.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import uuid
from collections import Counter
from datetime import timedelta
from pathlib import Path

import django
from django.conf import settings

LIFETIME, GRACE = float(sys.argv[2]), float(sys.argv[3])

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    # Create the tables from the models: the migrations would take seconds.
    MIGRATION_MODULES=dict.fromkeys(["auth", "contenttypes", "oauth2_provider"]),
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(sys.argv[1]) / "provider.sqlite3",
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                # A transaction that reads first and writes later would fail instead of waiting.
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
                "timeout": 30,
            },
        }
    },
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": LIFETIME,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": GRACE,
        "OAUTH2_VALIDATOR_CLASS": f"{__name__}.Validator",
        "SCOPES": {"read": "Read"},
    },
    # It sets Content-Length, without which the connection is closed after each response.
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        # 401s and closed connections are expected here.
        "loggers": {name: {"level": "ERROR"} for name in ["django.request", "django.server"]},
    },
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402  (Django must know its settings first)
from django.core.management import call_command  # noqa: E402
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402
from oauth2_provider.decorators import protected_resource  # noqa: E402
from oauth2_provider.models import AccessToken, Application, RefreshToken  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402
from oauth2_provider.views import TokenView  # noqa: E402

# Guards the counts.
counting = threading.Lock()
counts: Counter[str] = Counter()
seen: set[str] = set()


class Validator(OAuth2Validator):
    """Counts the presentations of refresh tokens, repeated ones, and refusals."""

    def validate_refresh_token(self, refresh_token, client, request, *args, **kwargs):
        taken = super().validate_refresh_token(refresh_token, client, request, *args, **kwargs)
        fingerprint = hashlib.sha256(refresh_token.encode()).hexdigest()
        with counting:
            counts["presented"] += 1
            counts["presented again"] += fingerprint in seen
            counts["renewals" if taken else "reuse detections"] += 1
            seen.add(fingerprint)
        return taken


@protected_resource(["read"], Validator, advertise_metadata=True)
def api(request: HttpRequest) -> HttpResponse:
    with counting:
        counts["api requests"] += 1
    return HttpResponse("Hello, " + request.resource_owner.username)


def login(request: HttpRequest) -> HttpResponse:
    """A new grant, and its first tokens, for the only user."""
    user, _ = User.objects.get_or_create(username="user")
    application = Application.objects.get(client_id="client")
    name = uuid.uuid4().hex
    access = AccessToken.objects.create(
        user=user,
        application=application,
        token=f"access-{name}",
        scope="read",
        expires=timezone.now() + timedelta(seconds=LIFETIME),
    )
    refresh = RefreshToken.objects.create(
        user=user,
        application=application,
        token=f"refresh-{name}",
        access_token=access,
        token_family=uuid.uuid4(),
    )
    with counting:
        counts["logins"] += 1
    return JsonResponse(
        {"access_token": access.token, "refresh_token": refresh.token, "expires_in": LIFETIME}
    )


def figures(request: HttpRequest) -> HttpResponse:
    """The counts, and the number of revoked grants: those without a valid refresh token."""
    grants = RefreshToken.objects.values("token_family").distinct()
    with counting:
        revoked = grants.count() - grants.filter(revoked=None).count()
        return JsonResponse({**counts, "grants revoked": revoked})


urlpatterns = [
    path("api/", api),
    path("token", TokenView.as_view()),
    path("login", login),
    path("figures", figures),
]


class Server(ThreadedWSGIServer):
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)
    Application.objects.create(
        client_id="client",
        client_secret="secret",
        hash_client_secret=False,  # a slow hash would cost more than all the rest
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
        redirect_uris="https://client.example.com/",
    )
    server = Server(("127.0.0.1", 0), Handler)
    server.set_app(get_wsgi_application())
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
