"""tokenadapter: an adapter on the API's prefix, and a file."""

from typing import Any

import requests

from contenders import CLIENT, Case, Send
from tokenadapter import FileStore, RefreshToken, TokenAdapter


def store(case: Case, token: dict[str, Any]) -> None:
    from tokenadapter import TokenKeeper

    TokenKeeper(RefreshToken(case.token_url, **CLIENT), FileStore(case.path)).adopt(token)


def sender(case: Case, **options: Any) -> Send:
    session = requests.Session()
    grant = RefreshToken(case.token_url, **CLIENT)
    TokenAdapter(case.api, grant, store=FileStore(case.path), **options).mount(session)
    return session.request
