"""Whether this process fits what it works on: its stores are one installation's, the schema its own, the keys theirs.

What is found is told here by name; whoever owns, accepts or answers "ready" asks here first. A fault is told loudly
when it comes and when it goes. `unable` is a lesser one, of workers: something they cannot carry out, which another
may; they step back while there is another.
"""

from __future__ import annotations

import structlog

from engine.errors import Unavailable

log = structlog.get_logger()


class Fitness:
    """One per process."""

    def __init__(self) -> None:
        self._faults: dict[str, str] = {}
        self._unable: dict[str, str] = {}

    @property
    def fits(self) -> bool:
        return not self._faults

    @property
    def unable(self) -> bool:
        return bool(self._unable)

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong, by name; empty when all is well."""
        return {**self._unable, **self._faults}

    def told(self) -> dict[str, object]:
        """For who asks whether the process is ready; nothing when all is well."""
        return {"does_not_fit": self.faults} if self.faults else {}

    def has(self, name: str) -> bool:
        return name in self._faults

    def tell(self, name: str, fault: str | None) -> None:
        """This is wrong, or is not any more."""
        before = self._faults.pop(name, None)
        if fault is not None:
            self._faults[name] = fault
        if fault is not None and fault != before:
            log.error("does_not_fit", fault=name, detail=fault)
        elif fault is None and before is not None:
            log.warning("fits_again", fault=name)

    def cannot(self, name: str, fault: str) -> None:
        """Of this kind of work, for the life of the process: its keys and connectors do not change."""
        if name not in self._unable:
            log.error("cannot_carry_out", fault=name, detail=fault)
        self._unable[name] = fault

    def check(self) -> None:
        """Raises Unavailable while something does not fit."""
        if self._faults:
            detail = "This process does not fit the installation it is connected to. Nothing was accepted."
            raise Unavailable("store_unavailable", detail)
