"""``python -m tokenadapter.testing``: the token server as a program, to try clients against.

For clients in other languages, browsers, and interactive sessions.  Tests use
:class:`~tokenadapter.testing.TokenServer` or the fixture ``token_server``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf

from tokenadapter.testing import TokenServer

PORT = 8410
CLIENT_ID, CLIENT_SECRET = "client", "secret"
USER, PASSWORD = "user", "password"

_FACTS = """\
token server on {url} (Ctrl-C stops it)

API               {api_url}
issuer            {issuer}
token endpoint    {token_url}
authorization     {authorization_url}
device login      {device_authorization_url}
revocation        {revocation_url}
login, not OAuth  {login_url}
client            {client_id}, secret: {client_secret}
user              {user}, password: {password}
refresh token     {refresh_token}
{proof}
{rules}

Paste this into python3:

{example}
"""

_EXAMPLE = """\
import requests
from tokenadapter import ClientCredentials, TokenAdapter

source = ClientCredentials(
    "{token_url}", client_id="{client_id}", client_secret="{client_secret}"{dpop}
)
session = requests.Session()
TokenAdapter("{api_url}", source{sent_as}).mount(session)
print(session.get("{api_url}invoices").json())
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until Ctrl-C or SIGTERM.

    :returns: the exit code: 0, or 1 if the port or a package is not available.
    """
    options = _options(arguments)
    try:
        server = TokenServer(
            clients={CLIENT_ID: CLIENT_SECRET}, users={USER: PASSWORD}, **vars(options)
        )
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    try:
        # SIGTERM ends it as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.start()
        except OSError as error:
            sys.stderr.write(
                f"cannot listen on port {options.port}: {error.strerror or error}. Pass another "
                "--port; 0 takes a free one.\n"
            )
            return 1
        sys.stdout.write(_facts(server, options))
        sys.stdout.flush()
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        sys.stdout.write("stopped\n")
        return 0
    finally:
        server.stop()


def _facts(server: TokenServer, options: argparse.Namespace) -> str:
    names = {
        "url": server.url,
        "api_url": server.api_url,
        "issuer": server.issuer,
        "token_url": server.token_url,
        "authorization_url": server.authorization_url,
        "device_authorization_url": server.device_authorization_url,
        "revocation_url": server.revocation_url,
        "login_url": server.login_url,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "user": USER,
        "password": PASSWORD,
        "dpop": ", dpop=True" if options.dpop else "",
        "sent_as": "".join(
            f", {name}={getattr(options, name)!r}"
            for name, usual in (("header", "Authorization"), ("scheme", "Bearer"))
            if getattr(options, name) != usual
        ),
    }
    return _FACTS.format(
        **names,
        refresh_token=server.issue()["refresh_token"],
        rules="\n".join(_rules(options)),
        proof=_proof(options),
        example=_EXAMPLE.format(**names),
    )


def _rules(options: argparse.Namespace) -> Iterator[str]:
    """What becomes of the tokens."""
    yield f"Access tokens live for {options.lifetime:g} s."
    if options.refresh_lifetime is not None:
        yield f"Refresh tokens live for {options.refresh_lifetime:g} s."
    if not options.rotate:
        yield "A renewal does not replace the refresh token."
        return
    yield "Each renewal replaces the refresh token."
    late = f" more than {options.grace:g} s later" if options.grace else ""
    end = "revokes the grant" if options.reuse_detection else "is refused"
    yield f"An old refresh token that is presented again{late} {end}."


def _proof(options: argparse.Namespace) -> str:
    """The line about what each request to the token endpoint and to the API needs in addition."""
    if not options.dpop:
        return ""
    nonce = "" if options.dpop_nonces is False else ", with the nonce of the server"
    if not isinstance(options.dpop_nonces, bool):
        nonce += f": another one every {options.dpop_nonces:g} s"
    return f"proof             DPoP (RFC 9449){nonce}\n"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tokenadapter.testing",
        description="An OAuth token endpoint and an API that it protects, on this machine only.  "
        "Its secrets are public: use it for trials and tests only.",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"0 takes a free one ({PORT})"
    )
    parser.add_argument(
        "--lifetime",
        type=_seconds,
        default=3600.0,
        metavar="S",
        help="how many seconds an access token lives (3600)",
    )
    parser.add_argument(
        "--refresh-lifetime",
        type=_seconds,
        metavar="S",
        help="how many seconds a refresh token lives (until it is revoked)",
    )
    parser.add_argument(
        "--no-rotate",
        dest="rotate",
        action="store_false",
        help="never replace a refresh token",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="for how many seconds a refresh token is accepted after it was replaced (none)",
    )
    parser.add_argument(
        "--no-reuse-detection",
        dest="reuse_detection",
        action="store_false",
        help="only refuse a replaced refresh token that is presented again, and revoke nothing",
    )
    parser.add_argument(
        "--header",
        default="Authorization",
        metavar="NAME",
        help="the header in which the API expects the access token (Authorization)",
    )
    parser.add_argument(
        "--scheme",
        default="Bearer",
        metavar="TEXT",
        help="what the API expects before the access token; may be empty (Bearer)",
    )
    parser.add_argument(
        "--dpop", action="store_true", help="bind tokens to keys, and require proofs (RFC 9449)"
    )
    parser.add_argument(
        "--dpop-nonces",
        type=_seconds,
        nargs="?",
        const=True,
        default=False,
        metavar="S",
        help="as --dpop, and proofs must have a nonce of the server; another one every S seconds",
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error("--port must be a number from 0 to 65535")
    options.dpop = options.dpop or options.dpop_nonces is not False
    return options


def _seconds(text: str) -> float:
    with suppress(ValueError):
        seconds = float(text)
        if 0 < seconds < inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


if __name__ == "__main__":
    sys.exit(main())
