"""What many programs have: a decorator around the call, which renews on a 401 and calls again."""

from functools import wraps
from typing import Any

import requests

from contenders import CLIENT, Case, Send


def store(case: Case, token: dict[str, Any]) -> None:
    case.save(token)


def sender(case: Case) -> Send:
    token = case.load()
    session = requests.Session()

    def renewing(send: Send) -> Send:
        @wraps(send)
        def again(*args: Any, **kwargs: Any) -> requests.Response:
            nonlocal token
            response = send(*args, **kwargs)
            if response.status_code == 401:
                form = CLIENT | {
                    "grant_type": "refresh_token",
                    "refresh_token": token["refresh_token"],
                }
                answer = session.post(case.token_url, data=form)
                answer.raise_for_status()
                token = token | answer.json()
                case.save(token)
                response = send(*args, **kwargs)
            return response

        return again

    @renewing
    def send(method: str, url: str, **kwargs: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        return session.request(method, url, headers=headers, **kwargs)

    return send
