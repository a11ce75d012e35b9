"""Logs: one line an event on stderr, a JSON object each (structlog and orjson) or, for eyes, plain text.

Everything that a process says comes out like that: our own lines, those of libraries (`logging`), Python's warnings,
and the traceback of what ends a process, a thread or a finalizer. No line ever shows the locals of a frame: a card may
be among them (I9).
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

import orjson
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

_STAMPED: tuple[Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_FRAMES: Processor = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def configure_logs(level: str, form: Literal["json", "console"] = "json") -> None:
    """`level` is debug, info, warning or error. Libraries are heard from warning on."""
    number: int = getattr(logging, level.upper())
    console = ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)
    structlog.configure(
        processors=[
            *_STAMPED,
            *((_FRAMES, structlog.processors.JSONRenderer(_encoded)) if form == "json" else (console,)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer)
        if form == "json"
        else structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_STAMPED],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                *((_FRAMES, structlog.processors.JSONRenderer(_text)) if form == "json" else (console,)),
            ],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed
    sys.unraisablehook = _not_raised


@contextmanager
def crash_logged() -> Iterator[None]:
    """For the processes of `multiprocessing`, which prints tracebacks itself: what ends this one is logged instead."""
    try:
        yield
    except Exception as error:
        _crashed(type(error), error, error.__traceback__)
        sys.exit(1)


class _Handler(logging.StreamHandler[Any]):
    """A line that cannot be made is said to be lost, in a line."""

    def handleError(self, record: logging.LogRecord) -> None:
        structlog.get_logger().error("log_line_lost", logger=record.name, at=f"{record.pathname}:{record.lineno}")


def _encoded(line: object, **options: Any) -> bytes:
    try:
        return orjson.dumps(line, **options)
    except TypeError:  # half a character, as in what somebody else's bytes were decoded to; or a number of 65 bits
        return json.dumps(line, default=repr, ensure_ascii=False).encode(errors="replace")


def _text(line: object, **options: Any) -> str:
    return _encoded(line, **options).decode()


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    structlog.get_logger().error("crashed", exc_info=(kind, error, trace))


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None and crash.exc_type is not SystemExit:
        name = crash.thread.name if crash.thread else None
        about = (crash.exc_type, crash.exc_value, crash.exc_traceback)
        structlog.get_logger().error("thread_crashed", thread=name, exc_info=about)


def _not_raised(what: Any) -> None:
    about = None if what.exc_value is None else (what.exc_type, what.exc_value, what.exc_traceback)
    structlog.get_logger().error("not_raised", where=repr(what.object)[:200], exc_info=about)
