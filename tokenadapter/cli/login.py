"""``tokenadapter login``: logs in a user, and stores the token.

The source of the profile needs a provider, an issuer, or the URLs authorization_url or
device_authorization_url. Without an option, the command opens a browser if there is a display.
Otherwise it shows a code to enter on another device, if the server supports that, or an address to
open in any browser. Every process that shares the store picks up the new token by itself.

With --api, only the URL of an API is needed: the API, such as an MCP server, names its
authorization server, and tokenadapter registers itself there. The profile is added to the
configuration file. Without a NAME, it is named after the host of the API. With --dpop, the tokens
are bound to a key (DPoP), which needs no option if the API requires it.

If the scope contains openid, the store remembers the user who logged in. The login of another user
is refused, and the stored token stays in use; --switch replaces it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tokenadapter.cli.api_profile import add_to_file, api_profile
from tokenadapter.cli.common import (
    UsageError,
    add_config,
    check_keeps_login,
    named_profile,
    reporting,
    seconds,
    validity,
)
from tokenadapter.cli.token_state import token_state

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a profile in the configuration file"
    )
    parser.add_argument("--api", metavar="URL", help="log in for this API, and add its profile")
    parser.add_argument(
        "--dpop", action="store_true", help="with --api: bind the tokens to a key (RFC 9449)"
    )
    add_config(parser)
    flows = parser.add_mutually_exclusive_group()
    for flow, does in (
        ("browser", "open a browser on this machine"),
        ("device", "show a code to enter on another device"),
        ("paste", "show an address, and read the address at which the browser ends"),
    ):
        flows.add_argument(
            f"--{flow}", dest="flow", action="store_const", const=flow, default=None, help=does
        )
    parser.add_argument(
        "--switch", action="store_true", help="replace the token of another user who logged in"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=seconds,
        default=600.0,
        help="how long to wait for the user: 90, 90s, 5m, 1h (10m)",
    )


def perform(options: Namespace) -> int:
    """Log in."""
    from tokenadapter.errors import TokenError
    from tokenadapter.logins.login import login

    if options.dpop and options.api is None:
        raise UsageError("--dpop belongs to --api. In a profile, set dpop = true in its source.")
    if options.api is not None:
        profile = reporting(api_profile(options), options)
    elif options.name is not None:
        profile = named_profile(options)
    else:
        raise UsageError("Name a profile, or the URL of an API after --api.")
    check_keeps_login(profile)
    try:
        token = login(
            profile.keeper(), flow=options.flow, timeout=options.timeout, switch=options.switch
        )
    except TokenError:
        raise
    except (TypeError, ValueError) as error:
        raise profile.config.error([profile.name, "source"], f"{error}.") from None
    if options.api is not None and add_to_file(profile, options):
        sys.stderr.write(f"tokenadapter: {profile.name}: added to {profile.config.path}\n")
    lack = ""
    if not token.refresh_token:
        lack = (
            ", without a refresh token: it cannot be renewed. Many servers issue one only for the "
            "scope offline_access, or with access_type=offline in authorization_url"
        )
    user = token_state(profile)["logged_in_as"]
    who = "" if user is None else f" as {user}"
    sys.stderr.write(f"tokenadapter: {profile.name}: logged in{who}{validity(token)}{lack}\n")
    return 0
