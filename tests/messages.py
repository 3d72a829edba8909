"""Finds the messages in the code of the package: the texts of its errors and of its log, and the
output of its command on standard error.

No code is run.  A text counts if it is an argument of a call that creates an error or a log line,
if it is in a variable of the same function that such a call gets, or if it is an argument of a
function that only passes it on.  Values that are filled in later appear as ``…``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

# These packages are not part of programs in production.
_ELSEWHERE = {"demo", "testing"}
# The base classes of errors at run time, unlike ValueError for errors of usage.
_ERRORS = {"Exception", "OSError", "RequestException"}
_LOGGING = {"debug", "info", "warning", "error", "critical", "exception", "log"}
# Functions whose text becomes a part of a message, with the position of the argument.
_INTO_MESSAGES = {"HandOn": 0, "_drop": 0, "failure": 2}


class Message(NamedTuple):
    """A message of the package."""

    key: str
    """Its beginning; see :func:`beginning`."""
    said_by: str
    """The class of the error, or the function that logs it."""
    place: str
    """The file and the line."""


def messages(package: Path) -> list[Message]:
    """The messages of *package*, without errors of usage.

    A message without words of its own only repeats another message, and is omitted.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _modules(package)}
    speakers = _speakers(trees)
    found = []
    for path, tree in trees.items():
        place = path.relative_to(package.parent)
        for function, call in _calls(tree):
            said_by, where = _name(call.func), f"{place}:{call.lineno}"
            texts = _texts(call, function, speakers)
            found += [Message(beginning(text), said_by, where) for text in texts]
        if path.name == "events.py":
            events = _events(tree)
            found += [
                Message(beginning(text), name, f"{place}:{line}") for name, text, line in events
            ]
    return [message for message in found if re.search(r"\w", message.key)]


def beginning(text: str) -> str:
    """*text* up to the first full stop, semicolon, or colon after at least three words."""
    for mark in re.finditer(r"[.;:](?= |$)", text):
        before = text[: mark.start()]
        if mark[0] != ":" or len(re.findall(r"\w+", before)) >= 3:
            return before.strip()
    return text.strip()


def _modules(package: Path) -> Iterator[Path]:
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0].removesuffix(".py") not in _ELSEWHERE:
            yield path


def _speakers(trees: dict[Path, ast.Module]) -> dict[str, int]:
    """The names of all callables that get a text, with the position of the text."""
    speakers = dict(_INTO_MESSAGES)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for name in classes:
        if _ERRORS & _lineage(name, classes):
            speakers[name] = 0
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    count = 0
    while count < len(speakers):
        count = len(speakers)
        for function in functions:
            index = _passed_on(function, speakers)
            if index is not None:
                speakers.setdefault(function.name, index)
    return speakers


def _lineage(name: str, classes: dict[str, ast.ClassDef]) -> set[str]:
    bases = {_name(base) for base in classes[name].bases} if name in classes else set()
    return bases.union(*(_lineage(base, classes) for base in bases))


def _passed_on(function: ast.FunctionDef, speakers: dict[str, int]) -> int | None:
    """The position of the argument that *function* passes on as a text, if any."""
    names = [argument.arg for argument in function.args.args if argument.arg != "self"]
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            said = _said(node, speakers)
            if isinstance(said, ast.Name) and said.id in names:
                return names.index(said.id)
    return None


def _calls(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.Call]]:
    """Every call, with the function that contains it."""
    waiting: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while waiting:
        scope, node = waiting.pop()
        if isinstance(node, ast.Call):
            yield scope, node
        inner = node if isinstance(node, ast.FunctionDef) else scope
        waiting.extend((inner, child) for child in ast.iter_child_nodes(node))


def _said(call: ast.Call, speakers: dict[str, int]) -> ast.expr | None:
    """The text of *call*, if it has one."""
    if ast.unparse(call.func) == "sys.stderr.write":
        return call.args[0]
    if _is_logging(call):
        args = call.args[1:] if _name(call.func) == "log" else call.args
        bare = isinstance(args[0], ast.Constant) and args[0].value in ("%s", "%s [%s]")
        return args[1] if bare else args[0]
    index = speakers.get(_name(call.func))
    return None if index is None or index >= len(call.args) else call.args[index]


def _is_logging(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in _LOGGING:
        return False
    return "getLogger" in ast.dump(function.value) or _name(function.value) in ("log", "logger")


def _texts(call: ast.Call, scope: ast.AST, speakers: dict[str, int]) -> list[str]:
    said = _said(call, speakers)
    return [] if said is None else [_tidy(text) for text in _values(said, scope)]


def _values(node: ast.AST, scope: ast.AST) -> list[str]:
    """The possible texts of *node*."""
    match node:
        case ast.Constant(value=str(text)):
            return [re.sub(r"%[rsd]", "…", text)]
        case ast.JoinedStr(values=parts):
            pieces = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
            return ["".join(map(str, pieces))]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return ["".join(pair) for pair in product(_values(left, scope), _values(right, scope))]
        case ast.IfExp(body=one, orelse=other):
            return _values(one, scope) + _values(other, scope)
        case ast.Name(id=name):
            assigned = [
                value
                for statement in ast.walk(scope)
                if isinstance(statement, ast.Assign) and name in map(_name, statement.targets)
                for value in _values(statement.value, scope)
            ]
            return assigned or ["…"]
        case _:
            return ["…"]


def _events(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Each event, with its texts in the log."""
    for kind in tree.body:
        if isinstance(kind, ast.ClassDef):
            for function in kind.body:
                if isinstance(function, ast.FunctionDef) and function.name == "_text":
                    for node in ast.walk(function):
                        if isinstance(node, ast.Return) and node.value is not None:
                            for text in _values(node.value, function):
                                yield kind.name, _tidy(text), node.lineno


def _tidy(text: str) -> str:
    # The prefix of each message of the command.
    return re.sub(r"…+", "…", text.removeprefix("tokenadapter: ").removeprefix("…: "))


def _name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
