"""The bank's log: one JSON object a line on standard output, `time`, `level`, `event`, then what the event is about."""

import logging
import sys
from datetime import UTC, datetime

import orjson

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
USUAL_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "color_message"}


class JsonLine(logging.Formatter):
    """A record, the fields of `extra` and the traceback if there is one, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in USUAL_ATTRIBUTES}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_as_json(level: str) -> None:
    """Send everything at or above the level (of settings.LOG_LEVELS) to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLine())
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)
    # The server's own lines repeat ours; its warnings and errors stay.
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))
