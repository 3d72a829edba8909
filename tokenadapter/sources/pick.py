"""Where something stands in an answer, told by a path.

===========================  ======================================================================
path                         what it names
===========================  ======================================================================
``access_token``             a member of the JSON object
``data.sessions.0.token``    members within members, and the items of lists by their number
``header:X-Auth-Token``      a response header
``cookie:session``           a cookie that the answer sets
``.``                        the whole answer: a JSON string, or bare text
===========================  ======================================================================

A name with a dot in it is found too, where the object has it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tokenadapter.sources.reply import Reply

if TYPE_CHECKING:
    from http.cookiejar import Cookie

__all__ = ["checked_path", "cookie", "pick"]


def checked_path(name: str, path: str) -> str:
    """*path*, if it is one.

    :param name: the argument that it was given for.
    :raises TypeError: if it is not a text.
    :raises ValueError: if it names nothing.
    """
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path in the answer, not {type(path).__name__}")
    if not path or path in ("header:", "cookie:"):
        raise ValueError(
            f"{name}={path!r} names nothing: give a path such as 'data.token', "
            "'header:X-Auth-Token' or 'cookie:session'"
        )
    return path


def pick(reply: Reply, path: str) -> Any:
    """What stands at *path*; ``None`` if there is nothing."""
    if path.startswith("header:"):
        return reply.headers.get(path.removeprefix("header:"))
    if path.startswith("cookie:"):
        found = cookie(reply, path)
        return None if found is None else found.value
    if path == ".":
        if isinstance(reply.content, str):
            return reply.content
        # What is written for people is not a token.
        text = re.fullmatch(r"(?![<{\[])[!-~]+", reply.body.decode("utf-8-sig", "replace").strip())
        return text and text[0]
    return _at(reply.content, path)


def cookie(reply: Reply, path: str) -> Cookie | None:
    """The cookie that *path* names, if it names one and the answer sets it."""
    name = path.removeprefix("cookie:")
    if name == path:
        return None
    return next((cookie for cookie in reply.cookies if cookie.name == name), None)


def _at(value: Any, path: str) -> Any:
    key, dot, rest = path.partition(".")
    if isinstance(value, dict):
        if path in value:
            return value[path]
        return _at(value.get(key), rest) if dot else None
    if isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
        return _at(value[int(key)], rest) if dot else value[int(key)]
    return None
