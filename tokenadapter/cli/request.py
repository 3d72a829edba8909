"""``tokenadapter request``: sends one request, with renewal and replay.

  tokenadapter request billing https://api.example.com/invoices -o invoices.json
  tokenadapter request billing https://api.example.com/invoices --json '{"total": 5}'
  report | tokenadapter request billing https://api.example.com/reports -d @-

Unlike "header" with curl, this command sees the response: if the API refuses the token, the token
is renewed and the request is sent again. The URL has to be under a prefix of the profile. Redirects
are followed; the token goes along only under a prefix. The body of the response goes to standard
output, whatever the status.

The exit code is 0 for a status below 400, 22 for any other, as with curl --fail, and 5 if the API
cannot be reached.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from tokenadapter.cli.common import add_name, named_profile
from tokenadapter.cli.output import STDOUT, unwritable
from tokenadapter.config.problems import ProfileError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from requests import PreparedRequest, Request, Response, Session

__all__ = ["add_arguments", "perform"]

# The exit code of curl --fail.
_STATUS_400 = 22
_TEMPORARY = 5
# Seconds to connect.  The response may take any time: a report, or a long poll.
_TIMEOUT = (30.0, None)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_name(parser)
    parser.add_argument("url", metavar="URL", help="the full URL of the request")
    parser.add_argument(
        "-X",
        "--request",
        metavar="METHOD",
        help="the method; the default is GET, or POST with a body",
    )
    parser.add_argument(
        "-H",
        "--header",
        metavar="LINE",
        action="append",
        default=[],
        type=_header,
        help="add a header, such as 'Accept: text/csv'",
    )
    body = parser.add_mutually_exclusive_group()
    body.add_argument(
        "-d",
        "--data",
        metavar="DATA",
        action="append",
        help="the body to send, as a form unless -H says otherwise; @FILE reads a file, @- "
        "standard input; several are joined by &",
    )
    body.add_argument(
        "--json", metavar="DATA", help="a body in JSON; @FILE reads a file, @- standard input"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the body of the response to this file"
    )
    parser.add_argument(
        "-i", "--include", action="store_true", help="print the status and the headers too"
    )
    parser.add_argument(
        "-f", "--fail", action="store_true", help="print no response with a status of 400 or above"
    )


def perform(options: Namespace) -> int:
    """Send the request and print the response."""
    profile = named_profile(options)
    adapters = profile.adapters()
    import requests

    from tokenadapter.cli.reporting import outside
    from tokenadapter.errors import TokenError

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
                raise outside(profile)
            settings = session.merge_environment_settings(url, {}, True, None, None)
            with (
                _opened(options.output) as cleared,
                session.send(request, timeout=_TIMEOUT, **settings) as response,
            ):
                return _printed(response, options, cleared)
        except TokenError:
            raise
        except requests.RequestException as error:
            sys.stderr.write(
                f"tokenadapter: {profile.name}: the API sent no complete response: "
                f"{_reason(error)}\n"
            )
            return _TEMPORARY


def _prepared(session: Session, request: Request) -> PreparedRequest:
    if "://" not in str(request.url):
        raise ProfileError("The URL is incomplete: give it in full, from https:// on.")
    try:
        return session.prepare_request(request)
    except ValueError as error:
        raise ProfileError(f"The request is invalid: {error}") from None


def _printed(response: Response, options: Namespace, cleared: Callable[[], IO[bytes]]) -> int:
    from requests import RequestException

    has_failed = response.status_code >= 400
    if has_failed and options.fail:
        sys.stderr.write(f"tokenadapter: {options.name}: the API answered {response.status_code}\n")
        return _STATUS_400
    try:
        output = cleared()
        if options.include:
            output.write(_head(response))
        for piece in response.iter_content(65536):
            output.write(piece)
        output.flush()
        if options.output is not None:
            output.close()  # network file systems may report only now that a disk is full
    except (BrokenPipeError, RequestException):
        raise  # the response broke off, which is an OSError too
    except OSError as error:
        raise unwritable(options.output or STDOUT, error) from None
    return _STATUS_400 if has_failed else 0


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
    """The body that ``-d`` or ``--json`` gives."""
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

    raise ArgumentTypeError(f"invalid header {text!r}: give one such as 'Accept: text/csv'")


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[Callable[[], IO[bytes]]]:
    """Open the file *path*, or standard output, and leave its content as it is.

    The file is opened before the request is sent.  Otherwise, a user whose response could not be
    written would send the request again, and the request would take effect twice.  Without a
    response, a new file is removed.

    :returns: a function that clears the file, and returns it.
    """
    if path is None:
        yield lambda: sys.stdout.buffer
        return
    is_unused = not os.path.lexists(path)
    try:
        file = open(path, "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        raise unwritable(path, error) from None

    def cleared() -> IO[bytes]:
        nonlocal is_unused
        is_unused = False
        if os.path.isfile(path):  # and no device or pipe
            file.truncate(0)
        return file

    try:
        yield cleared
    finally:
        with contextlib.suppress(OSError):  # what could not be written has been reported
            file.close()
            if is_unused and not os.path.getsize(path):  # another process may have written to it
                os.unlink(path)


def _head(response: Response) -> bytes:
    raw: Any = response.raw
    version = {10: "1.0", 11: "1.1", 20: "2"}.get(getattr(raw, "version", 11), "1.1")
    lines = [f"HTTP/{version} {response.status_code} {response.reason or ''}".rstrip()]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1", "replace")


def _reason(error: BaseException) -> str:
    """The root cause of *error*, on one line: the errors around it repeat the URL."""
    from tokenadapter.http.masking import masked

    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return masked(str(error) or type(error).__name__, ())
