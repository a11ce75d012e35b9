"""What the engine logs, while it is simulated: counted by name, and told as part of the history when that is traced."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[..., None]


class _Counting:
    """A logger of structlog's shape that renders nothing."""

    def __init__(self, heard: Counter[str]) -> None:
        self._heard = heard

    def info(self, event: str, **details: object) -> None:
        self._heard[event] += 1

    debug = warning = error = exception = info


class _Telling(_Counting):
    """One that tells as well, with the exception where there is one."""

    def __init__(self, heard: Counter[str], tell: Tell) -> None:
        super().__init__(heard)
        self._tell = tell

    def info(self, event: str, **details: object) -> None:
        super().info(event)
        self._tell(event, *(f"{name}={value}" for name, value in details.items()))

    debug = warning = error = info

    def exception(self, event: str, **details: object) -> None:
        self.info(event, **details, exception=repr(sys.exc_info()[1]))


@contextmanager
def overheard(heard: Counter[str], tell: Tell | None) -> Iterator[None]:
    """Inside, every module of the engine logs here."""
    logger = _Counting(heard) if tell is None else _Telling(heard, tell)
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("engine.")]
    own = [(vars(module), vars(module)["log"]) for module in modules if "log" in vars(module)]
    for names, _ in own:
        names["log"] = logger
    try:
        yield
    finally:
        for names, log in own:
            names["log"] = log
