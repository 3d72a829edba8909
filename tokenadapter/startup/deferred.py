"""Profiles that are installed when the program first uses requests or urllib3.

They are not installed when requests is imported: a program may import tokenadapter itself, which
imports requests before tokenadapter is ready.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock  # threading would be imported by programs that use neither
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import importing, late, load

if TYPE_CHECKING:
    from types import FrameType

    from tokenadapter import errors
    from tokenadapter.clients import install, urllib3_pools
    from tokenadapter.clients.requests import TokenAdapter
    from tokenadapter.config import config_file, problems, profile
else:
    errors = late("tokenadapter.errors")
    config_file = late("tokenadapter.config.config_file")
    install = late("tokenadapter.clients.install")
    urllib3_pools = late("tokenadapter.clients.urllib3_pools")
    profile = late("tokenadapter.config.profile")
    problems = late("tokenadapter.config.problems")

__all__ = ["DeferredProfiles"]


class DeferredProfiles:
    """The profiles *names* of the file *config*, to be installed in this program.

    If a profile is invalid, each request fails and names the mistake: none is sent unsigned.
    """

    def __init__(self, names: Sequence[str], config: str) -> None:
        self._names = names
        self._config = config
        self._adapters: list[TokenAdapter] | None = None
        self._is_installed = False
        self._renew_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def adapters(self) -> list[TokenAdapter]:
        """The adapters of the profiles.

        :raises RefreshConfigError: if a profile is invalid.
        """
        if self._adapters is None:
            try:
                config = config_file.ConfigFile.read(self._config)
                self._adapters = [
                    adapter
                    for name in self._names
                    for adapter in profile.Profile(config, name).adapters()
                ]
            except problems.ProfileError as error:
                # Callers of requests catch this error.
                raise errors.RefreshConfigError(f"{error} Nothing was sent.") from None
        return self._adapters

    def _renew_lock(self) -> None:
        self._lock = RLock()  # the thread that has it may not exist in a forked child

    # --- requests ------------------------------------------------------------------------

    def sign_sessions(self, sessions: Any) -> None:
        """Install the adapters when a session first sends a request or looks for an adapter.

        :param sessions: the module ``requests.sessions``.
        """
        session = sessions.Session
        plain = {name: getattr(session, name) for name in ("send", "get_adapter")}
        ours: dict[str, Any] = {}

        def begin() -> None:
            with self._lock:
                if self._is_installed:
                    return
                adapters = self.adapters()
                load(install)
                with importing():  # a child forked halfway would sign nothing
                    for name, method in ours.items():
                        if getattr(session, name) is method:  # else a tracer has wrapped it
                            setattr(session, name, plain[name])
                    install.install(*adapters)
                    self._is_installed = True

        def first(name: str) -> Callable[..., Any]:
            @wraps(plain[name])
            def method(self: Any, *args: Any, **kwargs: Any) -> Any:
                is_uncovered = getattr(session, name) is ours[name]
                begin()
                # The method that is there now or, if a tracer wraps ours, the one below ours.
                then = getattr(session, name) if is_uncovered else plain[name]
                return then(self, *args, **kwargs)

            return method

        for name in plain:
            ours[name] = first(name)
            setattr(session, name, ours[name])

    # --- urllib3 -------------------------------------------------------------------------

    def sign_pools(self, urllib3: Any) -> None:
        """Fit pool managers and pools that are made from now on, except those of requests.

        :param urllib3: the module.
        """
        self._fit_new(urllib3.PoolManager, unless_within=_REQUESTS)
        # A manager fits its own pools.
        self._fit_new(urllib3.HTTPConnectionPool, unless_within=(*_REQUESTS, "urllib3.poolmanager"))
        # This manager exists already; urllib3.request() uses it.
        default = getattr(urllib3, "_DEFAULT_POOL", None)
        if default is not None:
            self._fit_when_used(default)

    def _fit_new(self, kind: Any, unless_within: Sequence[str]) -> None:
        plain = kind.__init__
        fit = self._fit

        @wraps(plain)
        def make(self: Any, *args: Any, **kwargs: Any) -> None:
            plain(self, *args, **kwargs)
            if not _is_within(unless_within):
                fit(self)

        kind.__init__ = make

    def _fit_when_used(self, manager: Any) -> None:
        def urlopen(*args: Any, **kwargs: Any) -> Any:
            vars(manager).pop("urlopen", None)
            self._fit(manager)
            return manager.urlopen(*args, **kwargs)

        manager.urlopen = urlopen

    def _fit(self, target: Any) -> None:
        adapters = self.adapters()
        for adapter in adapters:
            urllib3_pools.fit(target, adapter)


_REQUESTS = ("requests.adapters", "requests.sessions")


def _is_within(modules: Sequence[str]) -> bool:
    """Whether one of the callers is in one of *modules*."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") in modules:
            return True
        frame = frame.f_back
    return False
