"""Logging with structlog on top of the standard library, which Faust, mode and aiokafka use."""

from __future__ import annotations

import logging.config
import os
import sys
from typing import Any, Final

import structlog

from astrocyte.schemas.errors import redacted

__all__ = ["configure_logging", "logging_config"]

_STAMPS: Final[list[structlog.typing.Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.format_exc_info,
]


_LIBRARIES: Final = ("aiokafka", "asyncio", "faust", "mode", "sqlalchemy", "alembic")


def _without_passwords(_logger: Any, _method: str, line: Any) -> Any:
    """Libraries quote addresses too, and tracebacks hold them."""
    return redacted(line) if isinstance(line, str) else line


class HideServiceMessages(logging.Filter):
    """Leave out the start and stop of every service of Faust and mode: ``[^--Consumer]: Starting...``."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or not str(record.msg).startswith("[^")


def logging_config(level: str, *, json: bool) -> dict[str, Any]:
    """Configuration for ``logging.config.dictConfig``: one handler on stderr, which writes JSON lines or plain text."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=_is_coloured(), pad_event_to=0)
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": _STAMPS,
        "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, _without_passwords],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"default": formatter},
        "filters": {"services": {"()": HideServiceMessages}},
        "handlers": {
            "default": {
                "class": "logging.StreamHandler",
                "formatter": "default",
                "filters": [] if level == "debug" else ["services"],
            }
        },
        "root": {"level": level.upper(), "handlers": ["default"]},
        # The libraries' messages about their own start and stop matter only for debugging.
        "loggers": {} if level == "debug" else {name: {"level": "WARNING"} for name in _LIBRARIES},
    }


def _is_coloured() -> bool:
    """Whether stderr is a terminal that shows colours, to a user who has not declined them (``NO_COLOR``)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def configure_logging(level: str, *, json: bool) -> None:
    """Send all logs to stderr. Called once by each process."""
    structlog.configure(
        processors=[*_STAMPS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(logging_config(level, json=json))
