"""Waits for a program to import requests or urllib3, and has the profiles installed then.

Nothing is imported before the program does it: one that uses neither pays for nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tokenadapter.startup import VARIABLE
from tokenadapter.startup.deferred import DeferredProfiles

__all__ = ["begin"]

_has_begun = False


def begin(text: str) -> None:
    """Do what ``tokenadapter run`` said.

    :param text: that, as JSON.
    """
    global _has_begun  # noqa: PLW0603
    if _has_begun:
        return  # a process of multiprocessing is told twice, if the environment is inherited
    _has_begun = True
    orders = json.loads(text)
    if not orders["inherit"]:
        _leave_environment(orders["pythonpath"])
    if orders["level"] is not None:
        from tokenadapter.startup.log import begin_log  # noqa: PLC0415 - else nobody pays for it

        begin_log(orders["level"])
    profiles = DeferredProfiles(orders["profiles"], orders["config"])
    Watch(
        {
            "requests.sessions": profiles.sign_sessions,
            "urllib3": profiles.sign_pools,
            "multiprocessing.spawn": lambda spawn: _send_along(spawn, orders),
        }
    ).begin()


class Watch:
    """Finds modules that somebody wants to know of, and leaves all others to others.

    A finder (:class:`importlib.abc.MetaPathFinder`), the first in ``sys.meta_path``.

    :param tell: whom to tell, once, when a module of a name has been loaded.
    """

    def __init__(self, tell: Mapping[str, Callable[[Any], None]]) -> None:
        self._tell = dict(tell)

    def begin(self) -> None:
        """Watch from now on."""
        sys.meta_path.insert(0, self)
        for name in [*self._tell]:
            if name in sys.modules:  # a .pth file was faster
                self.loaded(sys.modules[name])

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is, found by others, and loaded so that we hear of it."""
        if name not in self._tell:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if find is None or finder is self:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self.loaded)  # type: ignore[assignment]
                return spec
        return None

    def loaded(self, module: ModuleType) -> None:
        """*module* has been loaded."""
        tell = self._tell.pop(module.__name__, None)
        if tell is not None:
            tell(module)


class _Loader:
    """A module's own loader, and whom to tell when it has loaded the module."""

    def __init__(self, loader: Any, tell: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        # From now on it is as if it had been loaded without us.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._tell(module)


# --- the environment and other processes -------------------------------------------------


def _leave_environment(pythonpath: str | None) -> None:
    os.environ.pop(VARIABLE, None)
    if pythonpath is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = pythonpath


def _send_along(spawn: Any, orders: Mapping[str, Any]) -> None:
    """Let processes that multiprocessing starts anew begin as this one does.

    They have neither its modules nor, by now, its environment; but they read what their parent
    prepares for them.
    """
    prepare = spawn.get_preparation_data
    errand = _Errand(json.dumps({**orders, "inherit": True}))

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**prepare(name), "tokenadapter": errand}

    spawn.get_preparation_data = get_preparation_data


class _Errand:
    """Has another process begin, when it is unpickled there."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return begin, (self._text,)
