"""How the process renders what the library logs.

The library logs by the standard `logging` and formats nothing; this is the one place where
structlog is used, and it is only for operators of the `bridgepool` command.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog

LogFormat = Literal["auto", "json", "console"]


def use_json(log_format: LogFormat, out: TextIO) -> bool:
    """Tell whether to write JSON: when asked to, or when nobody reads along on a terminal."""
    return log_format == "json" or (log_format == "auto" and not out.isatty())


def set_up_logging(log_format: LogFormat, out: TextIO | None = None) -> None:
    """Render all logging, at level INFO and above, one line per event.

    Args:
        log_format: JSON, for people, or by whether `out` is a terminal.
        out: Where to; standard error if not given.
    """
    stream = sys.stderr if out is None else out
    as_json = use_json(log_format, stream)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta
    ]
    if as_json:
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last += [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # It tells of every event it sees; we tell of what came of them.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
