"""``python -m tokenadapter.testing``: the token server as a program, to try clients against.

For clients in other languages, browsers, and interactive sessions.  Tests use
:class:`~tokenadapter.testing.TokenServer` or the fixture ``token_server``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

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
Access tokens live for {lifetime:g} s.  Each renewal replaces the refresh token; an old one that is
presented again revokes the grant.  Paste this into python3:

{example}
"""

_EXAMPLE = """\
import requests
from tokenadapter import ClientCredentials, TokenAdapter

source = ClientCredentials(
    "{token_url}", client_id="{client_id}", client_secret="{client_secret}"{dpop}
)
session = requests.Session()
TokenAdapter("{api_url}", source).mount(session)
print(session.get("{api_url}invoices").json())
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until Ctrl-C or SIGTERM.

    :returns: the exit code: 0, or 1 if the port or a package is not available.
    """
    options = _options(arguments)
    try:
        server = TokenServer(
            port=options.port,
            lifetime=options.lifetime,
            clients={CLIENT_ID: CLIENT_SECRET},
            users={USER: PASSWORD},
            dpop=options.dpop,
            dpop_nonces=options.dpop_nonces,
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
    }
    return _FACTS.format(
        **names,
        refresh_token=server.issue()["refresh_token"],
        lifetime=options.lifetime,
        proof=_proof(options),
        example=_EXAMPLE.format(**names),
    )


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
        type=float,
        default=3600.0,
        metavar="S",
        help="how many seconds an access token lives (3600)",
    )
    parser.add_argument(
        "--dpop", action="store_true", help="bind tokens to keys, and require proofs (RFC 9449)"
    )
    parser.add_argument(
        "--dpop-nonces",
        type=float,
        nargs="?",
        const=True,
        default=False,
        metavar="S",
        help="as --dpop, and proofs must have a nonce of the server; another one every S seconds",
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error("--port must be a number from 0 to 65535")
    if not options.lifetime > 0:
        parser.error("--lifetime must be a number of seconds above 0")
    if options.dpop_nonces is not False:
        if not options.dpop_nonces > 0:
            parser.error("--dpop-nonces must be a number of seconds above 0")
        options.dpop = True
    return options


if __name__ == "__main__":
    sys.exit(main())
