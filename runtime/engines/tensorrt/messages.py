"""TensorRT's messages in the server's log."""

from __future__ import annotations

import logging

from runtime.engines.tensorrt.flavour import trt

log = logging.getLogger("lorikeet")


class _Messages(trt.ILogger):
    """Logs warnings and errors. `last_error`: the newest error, which says why a call gave nothing."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.last_error = ""

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, on any of its threads."""
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.last_error = msg
            log.error("TensorRT: %s", msg)
        elif severity == trt.ILogger.WARNING:
            log.warning("TensorRT: %s", msg)


# TensorRT keeps the first logger of a process, and ignores any other.
MESSAGES = _Messages()
