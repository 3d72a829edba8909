"""Writes a page for each provider, and their index, from what the library knows of them.

    python docs/providers/pages.py

The facts are in tokenadapter/sources/providers.toml.  A test compares the pages with what this
program makes of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenadapter.sources.providers import PATH, USUAL_REDIRECT, example

HERE = Path(__file__).parent

_NOTICE = "% Made by docs/providers/pages.py. Change tokenadapter/sources/providers.toml instead.\n"

_INDEX = """\
# Providers

Name the provider, and the library knows its endpoints and the settings that it needs:

```toml
[google]
prefix = "https://www.googleapis.com/"

[google.source]
type = "refresh_token"
provider = "google"
client_id = "…"
client_secret = {{ file = "google-secret" }}
scope = "https://www.googleapis.com/auth/calendar.readonly"
```

`tokenadapter init --provider google` writes such a profile. In code:

```python
from tokenadapter import RefreshToken

source = RefreshToken(
    provider="google",
    client_id="made-up",
    client_secret="made-up",
    scope="https://www.googleapis.com/auth/calendar.readonly",
)
```

`login()` and `TokenAdapter` take the rest from the source. A setting that you pass yourself takes
precedence: `client_auth`, `revocation_url`, `grace`, `login_lifetime`, `renew_early`, `verdict`,
and the URLs of a login.

A provider with a server for each customer takes `domain`, `tenant`, or both. For a provider that is
not in the table, pass `issuer` or `token_url` ([Sources](../howto/sources.md)).

The columns of the table say how long an access token lives, whether a renewal replaces the refresh
token, when an unused refresh token expires, and when a login ends, however often the token is
renewed.

{table}

A "–" means that no source was found, or that each client has a setting for it. Each page names its
sources. If it is known when a login ends, `tokenadapter status` and `check` warn in time.

```{{toctree}}
:hidden:

{names}
```
"""

_PAGE = """\
{notice}
# {title}

## Register

{register}

## Configure

```toml
{profile}```

`tokenadapter init --provider {name}` writes this profile. A public client has no secret: omit
`client_secret`. In code:

```python
from tokenadapter import RefreshToken

source = RefreshToken(
{arguments}
)
```

## Log in

```
tokenadapter login {name}
```

{login}

## What to know

{facts}

## Sources

| what | source | checked on |
|---|---|---|
{sources}
"""

_UNITS = (
    (31_536_000, "year"),
    (86_400, "day"),
    (3600, "hour"),
    (60, "minute"),
)
# Where a fact is from, and how a page calls facts that are no settings.
_ORIGIN = ("source", "date")
_HEADINGS = {"register": "how to register", "know": "what to know"}
# What a page says of a setting.
_WORDS = {
    "scope": "`{}` is added to your scope: without it, there is no refresh token.",
    "authorization_parameters": "A login asks with {}.",
    "renew_early": "A renewal ends the old access token. Tokens are renewed only when they have "
    "expired (`renew_early=False`).",
    "verdict": "The API does not answer 401 to an expired token, but {}. The provider brings the "
    "verdict for that.",
    "scope_separator": "A scope that you pass as a list is joined by `{}`.",
}


def span(seconds: int) -> str:
    """*seconds* in the largest unit that fits."""
    for size, unit in _UNITS:
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}" + ("s" if count > 1 else "")
    raise ValueError(seconds)


def merged(table: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a provider, without their sources."""
    facts: dict[str, Any] = {"register": [], "know": []}
    for group in table["facts"]:
        for key, value in group.items():
            facts[key] = facts[key] + value if key in ("register", "know") else value
    return facts


def bullets(sentences: list[str]) -> str:
    """*sentences* as a list in Markdown."""
    return "\n".join(f"* {sentence}" for sentence in sentences)


def _register(facts: Mapping[str, Any]) -> list[str]:
    redirect = facts.get("redirect_uri")
    if redirect is None:
        where = (
            f"Register the redirect URI `{USUAL_REDIRECT}`. To use another one, register it and "
            "set it as `redirect_uri`. If the provider accepts no URI of this machine, register a "
            "page of yours, set it as `redirect_uri`, and log in with `--paste`."
        )
    else:
        where = f"The redirect URI is `{redirect}`. A login adds a free port."
    return [*facts["register"], where]


def _login(facts: Mapping[str, Any]) -> str:
    ways = "opens a browser. `--paste` reads the address at which a browser on another machine ends"
    if "device_authorization_url" in facts:
        ways += "; `--device` shows a code to enter on another device"
    return f"The command {ways}.\n[Log in](../howto/login.md) has the details."


def _verdict(verdict: Mapping[str, Any]) -> str:
    fields = ", ".join(
        f"`{name}` is {' or '.join(f'`{one}`' for one in value)}"
        if isinstance(value, list)
        else f"`{name}` is `{str(value).lower()}`"
        for name, value in verdict["json"].items()
    )
    return f"{verdict['status']} with JSON in which {fields}"


def _known(facts: Mapping[str, Any]) -> Iterator[str]:
    if "access_token_lifetime" in facts:
        yield f"An access token lives for {span(facts['access_token_lifetime'])}."
    if facts.get("rotates"):
        grace = facts.get("grace")
        again = "" if grace is None else f". The server accepts the old one for {span(grace)} more"
        yield f"A renewal replaces the refresh token{again}."
    elif "rotates" in facts:
        yield "A renewal keeps the refresh token."
    if "unused_lifetime" in facts:
        yield f"A refresh token that is not used for {span(facts['unused_lifetime'])} expires."
    if "login_lifetime" in facts:
        yield (
            f"A login ends after {span(facts['login_lifetime'])}, however often the token is "
            "renewed. `tokenadapter status` and `check` warn in time."
        )
    if "scope" in facts:
        yield _WORDS["scope"].format(facts["scope"])
    if "authorization_parameters" in facts:
        asked = facts["authorization_parameters"].items()
        shown = " and ".join(f"`{name}={value}`" for name, value in asked)
        yield _WORDS["authorization_parameters"].format(shown)
    if facts.get("renew_early") is False:
        yield _WORDS["renew_early"]
    if "verdict" in facts:
        yield _WORDS["verdict"].format(_verdict(facts["verdict"]))
    if "scope_separator" in facts:
        yield _WORDS["scope_separator"].format(facts["scope_separator"])
    yield from facts["know"]


def _arguments(name: str, table: Mapping[str, Any]) -> str:
    given = {"provider": name}
    for key, known in table.get("parameters", {}).items():
        if "default" not in known:
            given[key] = "id.example.com" if key == "domain" else "main"
    given |= {"client_id": "made-up", "client_secret": "made-up"}
    if "scope" in table["example"]:
        given["scope"] = table["example"]["scope"]
    return "\n".join(f'    {key}="{value}",' for key, value in given.items())


def _sources(table: Mapping[str, Any]) -> str:
    lines = []
    for group in table["facts"]:
        keys = ", ".join(_HEADINGS.get(key, f"`{key}`") for key in group if key not in _ORIGIN)
        site = group["source"].split("/")[2]
        lines.append(f"| {keys} | [{site}]({group['source']}) | {group['date']} |")
    return "\n".join(lines)


def page(name: str, table: Mapping[str, Any]) -> str:
    """The page of one provider."""
    facts = merged(table)
    return _PAGE.format(
        notice=_NOTICE,
        title=table["name"],
        name=name,
        register=bullets(_register(facts)),
        profile=example(name),
        arguments=_arguments(name, table),
        login=_login(facts),
        facts=bullets([*_known(facts)]),
        sources=_sources(table),
    )


def index(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The page that lists all providers."""
    lines = [
        "| provider | name | access token | new refresh token | unused for | login lasts |",
        "|---|---|---|---|---|---|",
    ]
    for name, table in by_title(tables):
        facts = merged(table)
        spans = {
            key: span(facts[key]) if key in facts else "–"
            for key in ("access_token_lifetime", "unused_lifetime", "login_lifetime")
        }
        rotates = {True: "yes", False: "no"}.get(facts.get("rotates"), "–")
        takes = "".join(f", `{key}`" for key in table.get("parameters", {}))
        lines.append(
            f"| [{table['name']}]({name}.md) | `{name}`{takes} | "
            f"{spans['access_token_lifetime']} | {rotates} | {spans['unused_lifetime']} | "
            f"{spans['login_lifetime']} |"
        )
    names = "\n".join(name for name, _ in by_title(tables))
    return _NOTICE + "\n" + _INDEX.format(table="\n".join(lines), names=names)


def by_title(tables: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The providers in the order of their titles."""
    return sorted(tables.items(), key=lambda item: item[1]["name"].lower())


def pages() -> dict[str, str]:
    """All pages, by the names of their files."""
    tables = tomllib.loads(Path(PATH).read_text("utf-8"))
    made = {f"{name}.md": page(name, table) for name, table in tables.items()}
    return {**made, "index.md": index(tables)}


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf-8")
