"""Log rendering of the programs.

The library logs by the standard `logging` and formats nothing. Only this module uses structlog,
for operators of the `bridgepool` command.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from structlog.typing import Processor

LogFormat = Literal["auto", "json", "console"]


def use_json(log_format: LogFormat, out: TextIO) -> bool:
    """Return whether to write JSON: when asked to, or when `out` is not a terminal."""
    return log_format == "json" or (log_format == "auto" and not out.isatty())


def set_up_logging(log_format: LogFormat, out: TextIO | None = None) -> None:
    """Render all logging, at level INFO and above, one line per event.

    Args:
        log_format: JSON, for people, or by whether `out` is a terminal.
        out: Where to; standard error if not given.
    """
    import structlog  # a program that embeds the gateway needs none of it

    stream = sys.stderr if out is None else out
    as_json = use_json(log_format, stream)
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
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
    # It logs every event of the file system.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
