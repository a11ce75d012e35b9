"""Anchors: the heads of all journals at one moment, in a file that is kept where the database's masters cannot write.

The chain alone cannot show what somebody with the key, or with both tables in hand, has rewritten from the end. A later
look at the journal against an anchor can: every row that was a head then must still be there, with the same mac.

The file is gzip of `payment sequence mac` lines and, last, a line of JSON with their digest: so a file that was cut or
edited is known, and it is enough to keep those 64 characters safe, and the file anywhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import Broken

_FORMAT = "penstock-anchor-1"
_LINE_MAX = 1000  # characters; a line of ours has about 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last row of a payment's journal at the time."""

    payment: str
    sequence: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A file that is what its digest says."""

    path: Path
    installation: str
    taken_at: datetime
    payments: int
    digest: str

    def heads(self) -> Iterator[Head]:
        for line in _lines(self.path):
            if not line.startswith(b"{"):
                payment, sequence, mac = line.decode("ascii").split()
                yield Head(payment=payment, sequence=int(sequence), mac=mac)


class Draft:
    """An anchor on its way. It becomes a file, whole, when it is sealed; of one that is not, nothing is left."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.{os.getpid()}")
        self._digest, self._payments = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        """Raises OSError."""
        self._file = self._part.open("wb")
        self._body = gzip.GzipFile("", "wb", fileobj=self._file, mtime=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def add(self, head: Head) -> None:
        line = f"{head.payment} {head.sequence} {head.mac}\n".encode("ascii")
        self._body.write(line)
        self._digest.update(line)
        self._payments += 1

    def seal(self, *, installation: str, taken_at: datetime) -> Anchor:
        """Raises OSError."""
        told = {
            "format": _FORMAT,
            "installation": installation,
            "taken_at": taken_at.isoformat(),
            "payments": self._payments,
            "digest": self._digest.hexdigest(),
        }
        self._body.write(json.dumps(told).encode() + b"\n")
        self._body.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._path)
        return _anchor(self._path, told)


def read(path: Path) -> Anchor:
    """The anchor in a file, read once from end to end. Raises Broken for one that is not ours or not whole, OSError."""
    digest, payments, last = hashlib.sha256(), 0, b""
    for line in _lines(path):
        if last:
            digest.update(last)
            payments += 1
        last = line
    try:
        told = json.loads(last)
        anchor = _anchor(path, told)
    except (ValueError, KeyError, TypeError):
        raise Broken(
            f"{path} is no anchor, or its end is missing: penstock verify-journal --export makes one"
        ) from None
    if (told.get("format"), anchor.payments, anchor.digest) != (_FORMAT, payments, digest.hexdigest()):
        raise Broken(f"{path} was altered after it was written: its digest is not that of its lines")
    return anchor


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(_LINE_MAX):
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Broken(
            f"{path} is no anchor, or its end is missing: penstock verify-journal --export makes one"
        ) from None


def _anchor(path: Path, told: dict[str, object]) -> Anchor:
    return Anchor(
        path=path,
        installation=str(told["installation"]),
        taken_at=datetime.fromisoformat(str(told["taken_at"])),
        payments=int(str(told["payments"])),
        digest=str(told["digest"]),
    )
