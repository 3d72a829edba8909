"""docs/troubleshooting.md has an entry for each message of the library, and no other entries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from messages import Message, beginning, messages

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"

# The first line of an entry is the beginning of a message; then come the lines that explain it.
ENTRY = re.compile(r"^`(?P<key>[^`\n]+)`\n: (?P<text>.+(?:\n(?:  .+)?)*)", re.MULTILINE)

HOW_TO_ADD_ONE = """docs/troubleshooting.md says nothing about

{}

Add an entry for each to the section it belongs to, with this very text as its first line ("…"
stands for what is filled in), and then what happened, what was kept, and what to do:

`{}`
: ...
"""


def entries() -> dict[str, str]:
    found = list(ENTRY.finditer(PAGE.read_text(encoding="utf-8")))
    keys = [entry["key"] for entry in found]
    assert len(keys) == len(set(keys)), "an entry stands there twice"
    return {entry["key"]: entry["text"] for entry in found}


@pytest.fixture(scope="module")
def ours() -> list[Message]:
    return messages(ROOT / "tokenadapter")


def test_every_message_has_an_entry(ours: list[Message]) -> None:
    known = entries()
    missing = [message for message in ours if message.key not in known]
    text = "\n".join(f"`{each.key}`  ({each.said_by}, {each.place})" for each in missing)
    assert not missing, HOW_TO_ADD_ONE.format(text, missing[0].key)


def test_every_entry_has_a_message(ours: list[Message]) -> None:
    said = {message.key for message in ours}
    gone = [key for key in entries() if key not in said]
    assert not gone, f"nothing says this any more: {gone}; remove or reword it in {PAGE.name}"


def test_every_entry_has_an_explanation() -> None:
    assert [key for key, text in entries().items() if len(text.split()) < 8] == []


# --- how messages are found --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("It failed. Try again.", "It failed"),
        ("https://… refused it", "https://… refused it"),
        ("… is broken: …; this process goes on", "… is broken: …"),
        ("… is broken for good: …. Nothing was lost.", "… is broken for good"),
        ("use api.example.com", "use api.example.com"),
    ],
)
def test_a_message_is_identified_by_its_beginning(text: str, key: str) -> None:
    assert beginning(text) == key


CODE = """
class Broken(OSError):
    pass

class Misused(ValueError):
    pass

def as_it_is():
    raise StoreError("a plain text. More.")

def filled_in(error):
    raise Broken(f"it is {error!r} and {error}{error}.")

def by_a_variable(first):
    text = f"one of {first}. "
    if first:
        text = "or another. "
    return StoreError(text + "More.")

def by_choice(first):
    return Broken("this one" if first else "that one", first)

class Slot:
    def passed_on(self, kind, message):
        raise StoreError(message)

    def passed_on_twice(self, message):
        self.passed_on(1, message)

    def caller(self):
        self.passed_on(1, "by way of another")
        self.passed_on_twice("by way of two others")

def logged(error):
    logging.getLogger("tokenadapter").warning("%r was logged", error)
    log.log(10, "%s", f"{error} was logged too")

def text():
    sys.stderr.write(f"tokenadapter: {name}: the command says so\\n")
    sys.stdout.write("not this")

def usage():
    raise ValueError("not this one")
    raise Misused("nor this one")

def handed_on(error):
    raise StoreError(str(error)) from error
"""


def test_messages_of_every_form_are_found(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "testing").mkdir(parents=True)
    (package / "errors.py").write_text("class StoreError(RequestException):\n    pass\n")
    (package / "module.py").write_text(CODE)
    (package / "testing" / "module.py").write_text(CODE)
    found: list[Message] = messages(package)
    assert {message.key for message in found} == {
        "a plain text",
        "it is … and …",
        "one of …",
        "or another",
        "this one",
        "that one",
        "by way of another",
        "by way of two others",
        "… was logged",
        "… was logged too",
        "the command says so",
    }
    assert all(message.place.startswith("package/module.py:") for message in found)
