"""``tokenadapter request``: one request, renewed and replayed as a program's would be.

  tokenadapter request billing https://api.example.com/invoices -o invoices.json
  tokenadapter request billing https://api.example.com/invoices --json '{"total": 5}'
  report | tokenadapter request billing https://api.example.com/reports -d @-

Unlike "header" with curl, it sees the answer: if the API refuses the token, the token is renewed
and the request sent again. The URL has to be under a prefix of the profile. Redirects are followed;
the token goes with them only under a prefix. The body goes to standard output, whatever the
status is.

It ends with 0 if the status is below 400, else with 22, as curl --fail does; and with 5 if the API
cannot be reached.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.cli.streams import STDOUT, unwritable
from tokenadapter.config.trouble import ProfileError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from requests import PreparedRequest, Request, Response, Session

__all__ = ["add_arguments", "perform"]

# curl's own, with --fail.
_FAILED = 22
_LATER = 5
# Seconds to connect.  The answer may take as long as it takes: a report, or a long poll.
_TIMEOUT = (30.0, None)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_name(parser)
    parser.add_argument("url", metavar="URL", help="where the request goes, in full")
    parser.add_argument(
        "-X", "--request", metavar="METHOD", help="the method: GET, or POST if there is a body"
    )
    parser.add_argument(
        "-H",
        "--header",
        metavar="LINE",
        action="append",
        default=[],
        type=_header,
        help="a header, such as 'Accept: text/csv'",
    )
    body = parser.add_mutually_exclusive_group()
    body.add_argument(
        "-d",
        "--data",
        metavar="DATA",
        action="append",
        help="a form or whatever else to send; @FILE: what is in a file, @-: standard input; "
        "of several, an & joins them",
    )
    body.add_argument("--json", metavar="DATA", help="JSON to send, or @FILE, @-")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the body to this file")
    parser.add_argument("-i", "--include", action="store_true", help="print status and headers too")
    parser.add_argument(
        "-f", "--fail", action="store_true", help="print nothing of an answer of 400 or above"
    )


def perform(options: Namespace) -> int:
    """Send the request, and print the answer."""
    profile = named_profile(options)
    adapters = profile.adapters()
    import requests

    from tokenadapter.errors import TokenError, UnsafeTarget

    headers, body = _headers_and_body(options)
    method = (options.request or ("GET" if body is None else "POST")).upper()
    with requests.Session() as session:
        for adapter in adapters:
            adapter.mount(session)
        request = _prepared(
            session, requests.Request(method, options.url, headers=dict(headers), data=body)
        )
        try:
            url = request.url or ""
            if not any(adapter.covers(url) for adapter in adapters):
                raise UnsafeTarget(
                    f"The URL is not under {' or '.join(profile.prefixes)}, so the token of "
                    f"{profile.name} must not go there. Nothing was sent: check the URL, or use "
                    "curl for a request without a token."
                )
            settings = session.merge_environment_settings(url, {}, True, None, None)
            with session.send(request, timeout=_TIMEOUT, **settings) as response:
                return _printed(response, options)
        except TokenError:
            raise
        except requests.RequestException as error:
            sys.stderr.write(
                f"tokenadapter: {profile.name}: no whole answer came from the API: "
                f"{_reason(error)}\n"
            )
            return _LATER


def _prepared(session: Session, request: Request) -> PreparedRequest:
    try:
        return session.prepare_request(request)
    except ValueError as error:
        raise ProfileError(f"There is no such request: {error}") from None


def _printed(response: Response, options: Namespace) -> int:
    from requests import RequestException

    has_failed = response.status_code >= 400
    if has_failed and options.fail:
        sys.stderr.write(f"tokenadapter: {options.name}: the API answered {response.status_code}\n")
        return _FAILED
    with _output(options.output) as output:
        try:
            if options.include:
                output.write(_head(response))
            for piece in response.iter_content(65536):
                output.write(piece)
            output.flush()
        except (BrokenPipeError, RequestException):
            raise  # the answer broke off, which is an OSError too
        except OSError as error:
            raise unwritable(options.output or STDOUT, error) from None
    return _FAILED if has_failed else 0


def _headers_and_body(options: Namespace) -> tuple[list[tuple[str, str]], bytes | None]:
    headers: list[tuple[str, str]] = []
    body = None
    if options.json is not None:
        headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
        body = _content(options.json)
    elif options.data is not None:
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        body = b"&".join(map(_content, options.data))
    given = {name.lower() for name, _ in options.header}
    return [*(one for one in headers if one[0].lower() not in given), *options.header], body


def _content(text: str) -> bytes:
    """What ``-d`` or ``--json`` means."""
    if not text.startswith("@"):
        return text.encode(errors="surrogateescape")
    if text == "@-":
        return sys.stdin.buffer.read()
    try:
        with open(text[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise ProfileError(f"{text[1:]} cannot be read: {error.strerror}.") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if colon and name and name == name.strip() and "\n" not in text and "\r" not in text:
        return name, value.strip()
    from argparse import ArgumentTypeError

    raise ArgumentTypeError(f"{text!r} is no header such as 'Accept: text/csv'")


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        file = open(path, "wb")  # noqa: SIM115 - closed below, and what is written is its own error
    except OSError as error:
        raise unwritable(path, error) from None
    with file:
        yield file


def _head(response: Response) -> bytes:
    raw: Any = response.raw
    version = {10: "1.0", 11: "1.1", 20: "2"}.get(getattr(raw, "version", 11), "1.1")
    lines = [f"HTTP/{version} {response.status_code} {response.reason or ''}".rstrip()]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1", "replace")


def _reason(error: BaseException) -> str:
    """The first cause of *error*, on one line: what is around it repeats the URL."""
    from tokenadapter.http.masking import masked

    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return masked(str(error) or type(error).__name__, ())
