"""On which line a key stands."""

from __future__ import annotations

import pytest

from tokenadapter.config.lines import line_of

TEXT = """\
# a comment with [brackets] and a = sign
[billing]
prefix = "https://api.example/"  # [not.a.table]
"quoted key" = 1

  [ billing . source ]
  type = "login"
json.user = "ada"

[other.source]
type = "password"
inline = { env = "X" }
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("billing", 2),
        ("billing.prefix", 3),
        ("billing.quoted key", 4),
        ("billing.source", 6),
        ("billing.source.type", 7),
        ("billing.source.json.user", 8),
        ("other.source.type", 11),
        ("other.source.inline.env", 12),
        ("other.source.missing", 10),
        ("billing.missing", 2),
        ("other", None),
        ("nothing", None),
    ],
)
def test_the_line_of_a_key_or_else_of_what_it_would_stand_in(key: str, line: int | None) -> None:
    assert line_of(TEXT, key.split(".")) == line
