"""Tokens for REST catalogs of PyIceberg, by the class's name in the properties of the catalog.

::

    load_catalog("prod", **{
        "type": "rest",
        "uri": "https://catalog.example.com/",
        "auth": {
            "type": "custom",
            "impl": "tokenadapter.bridges.pyiceberg.KeeperAuthManager",
            "custom": {"keeper": keeper},
        },
    })
"""

from __future__ import annotations

from tokenadapter.bridges import Bridge

try:
    from pyiceberg.catalog.rest.auth import AuthManager
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "KeeperAuthManager needs pyiceberg: pip install 'tokenadapter[pyiceberg]'"
    ) from _error

__all__ = ["KeeperAuthManager"]


class KeeperAuthManager(Bridge, AuthManager):
    """An ``AuthManager`` of PyIceberg: each request calls the keeper.

    :param keeper: a :class:`~tokenadapter.TokenKeeper`.
    :raises TypeError: if *keeper* is not a keeper.
    """

    def auth_header(self) -> str:
        """The value of the header ``Authorization``.

        :raises TokenError: if there is no token.
        """
        return f"Bearer {self._given.token().access_token}"
