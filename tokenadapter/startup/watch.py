"""Waits until the program imports requests or urllib3, and prepares them for the profiles.

Nothing is imported before the program imports it: a program that uses neither pays nothing.
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
from tokenadapter.values import printable

__all__ = ["begin"]

_has_begun = False


def begin(text: str) -> None:
    """Carry out the orders of ``tokenadapter run``.

    :param text: the orders, in JSON.
    """
    global _has_begun  # noqa: PLW0603
    if _has_begun:
        return  # a process of multiprocessing gets them twice if it inherits the environment
    _has_begun = True
    orders = json.loads(text)
    if not orders["inherit"]:
        _leave_environment(orders["pythonpath"])
    if orders["level"] is not None:
        from tokenadapter.startup.log import begin_log  # noqa: PLC0415 - rarely needed

        begin_log(orders["level"])
    _report_errors(in_detail=orders["level"] == "DEBUG")
    profiles = DeferredProfiles(orders["profiles"], orders["config"])
    Watch(
        {
            "requests.sessions": profiles.sign_sessions,
            "urllib3": profiles.sign_pools,
            "multiprocessing.spawn": lambda spawn: _send_along(spawn, orders),
        }
    ).begin()


class Watch:
    """Calls functions when certain modules have been loaded, and leaves all other modules alone.

    A finder (:class:`importlib.abc.MetaPathFinder`), the first in ``sys.meta_path``.

    :param callbacks: by the name of the module; each is called once, with the module.
    """

    def __init__(self, callbacks: Mapping[str, Callable[[Any], None]]) -> None:
        self._callbacks = dict(callbacks)

    def begin(self) -> None:
        """Watch from now on."""
        sys.meta_path.insert(0, self)
        for name in [*self._callbacks]:
            if name in sys.modules:  # a .pth file has imported it
                self.loaded(sys.modules[name])

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that another finder has for the module, with a loader that calls back."""
        if name not in self._callbacks:
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
        callback = self._callbacks.pop(module.__name__, None)
        if callback is not None:
            callback(module)


class _Loader:
    """Wraps the loader of a module, and calls back when the module has been loaded."""

    def __init__(self, loader: Any, callback: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._callback = callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        # From now on, the module looks as if it had been loaded without us.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._callback(module)


# --- the end of the program ----------------------------------------------------------------


def _report_errors(*, in_detail: bool) -> None:
    """End a program that fails for want of a token as a command does: by a message and its code.

    :param in_detail: whether to show the traceback too.
    """
    show = sys.excepthook

    def report(kind: Any, error: BaseException, trace: Any) -> None:
        errors: Any = sys.modules.get("tokenadapter.errors")
        ours = errors is not None and isinstance(error, errors.TokenError)
        if in_detail or not ours:
            show(kind, error, trace)
        if ours:
            if sys.stderr is not None:
                sys.stderr.write(f"tokenadapter: {printable(str(error))}\n")
            raise SystemExit(error.exit_code)  # type: ignore[attr-defined]

    sys.excepthook = report


# --- the environment and other processes -------------------------------------------------


def _leave_environment(pythonpath: str | None) -> None:
    os.environ.pop(VARIABLE, None)
    if pythonpath is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = pythonpath


def _send_along(spawn: Any, orders: Mapping[str, Any]) -> None:
    """Make processes that multiprocessing spawns carry out the same orders.

    They inherit neither the modules nor, by now, the environment variable; but they unpickle the
    data that their parent prepares.
    """
    prepare = spawn.get_preparation_data
    orders_to_unpickle = _Orders(json.dumps({**orders, "inherit": True}))

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**prepare(name), "tokenadapter": orders_to_unpickle}

    spawn.get_preparation_data = get_preparation_data


class _Orders:
    """Carries out orders in the process in which it is unpickled."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return begin, (self._text,)
