"""Logging set-up: constant messages with their fields as ``key=value``, or one JSON object a line.

The only place that configures logging. Everything else says ``logging.getLogger(__name__)`` and passes values in
``extra``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gprof_lite.config import OptionValues, one_of, options_of, setting

# What logging itself puts on a record; everything else on it came in by `extra`.
_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How much is logged, and in which form. Logs go to stderr."""

    log_level: str = setting(
        "warning", read=one_of("debug", "info", "warning", "error"), help="least level that is logged to stderr"
    )
    log_format: str = setting("text", read=one_of("text", "json"), help="form of a log line: text or json")


class TextFormatter(logging.Formatter):
    """``12:04:31 WARNING gprof_lite.delivery.uploader upload failed status=503``."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = "".join(f" {key}={_shown(value)}" for key, value in _extra(record).items())
        text = f"{time} {record.levelname} {record.name} {record.getMessage()}{fields}"
        return text + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def configure_logging(options: OptionValues) -> None:
    """Send this package's logs to stderr as the options say."""
    chosen = options_of(options, LogOptions)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if chosen.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(chosen.log_level.upper())
    # urllib3 logs whole URLs of every request at debug level.
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _extra(record: logging.LogRecord) -> Mapping[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _OWN_FIELDS}


def _shown(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)
