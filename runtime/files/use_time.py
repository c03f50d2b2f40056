"""The time at which a file of the store was last used: its modification time."""

from __future__ import annotations

import os
import time
from pathlib import Path

_EXACT_SECONDS = 10.0


def mark_used(path: Path) -> None:
    """Set the time of the last use to now, unless that changes it by less than 10 s. Raises OSError.

    So a file that many requests use costs few writes.
    """
    if abs(time.time() - path.stat().st_mtime) > _EXACT_SECONDS:
        os.utime(path)
