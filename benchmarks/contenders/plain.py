"""Plain requests: a header that is fixed.  Nobody renews it."""

from typing import Any

import requests

from contenders import Case, Send


def store(case: Case, token: dict[str, Any]) -> None:
    case.save(token)


def sender(case: Case) -> Send:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {case.load()['access_token']}"
    return session.request
