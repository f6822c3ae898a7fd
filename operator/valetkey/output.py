"""Output: what the operator says while it runs, on its standard output; one JSON object a line, or plain text."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any, Final, Literal

from pythonjsonlogger.json import JsonFormatter

_FIELDS: Final = ("at", "level", "logger", "message", "exception")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonLines(JsonFormatter):
    """`at` (RFC 3339, UTC), `level`, `logger`, `message`, and `exception` as text where there is one; nothing else."""

    def __init__(self) -> None:
        super().__init__(
            ("levelname", "name", "message"),
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            timestamp="at",
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Leaves out what others hang onto a record: kopf's hold whole settings and references to objects."""
        said = {field: log_data[field] for field in _FIELDS if field in log_data}
        return said | {"level": said["level"].lower()}


def configure(form: Literal["json", "text"]) -> None:
    """Sends everything that is said to standard output: all loggers, Python's warnings, and what ends the process."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = _say_why_it_ends


def _say_why_it_ends(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("it ends", exc_info=(kind, error, traceback))
