"""Whether an error says that a disk is full: that of the files, or that of the database."""

from __future__ import annotations

import errno

from sqlalchemy.exc import DBAPIError

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_POSTGRES_STATE = "53100"  # disk_full
_SQLITE_TEXT = "database or disk is full"  # SQLITE_FULL; Python 3.10 has the text only


def is_storage_full(error: Exception) -> bool:
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) == _POSTGRES_STATE or str(error.orig) == _SQLITE_TEXT
    return isinstance(error, OSError) and error.errno in _NUMBERS
