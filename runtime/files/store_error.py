"""The error of a store whose disk is full or fails."""

from __future__ import annotations

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StoreError(Exception):
    """The store cannot keep a file, because its disk is full or fails; the message is fit for the client."""

    def __init__(self, error: OSError) -> None:
        if is_full(error):
            reason = "the disk of the server's store (LORIKEET_STORE) is full: try again later"
        elif isinstance(error, FileNotFoundError):
            reason = "the server's store was deleted while it was in use: send the request again"
        else:
            reason = f"the server cannot write to its store, LORIKEET_STORE ({error.strerror})"
        super().__init__(reason)


def is_full(error: OSError) -> bool:
    """Whether the error says that the disk, or the user's quota, is full."""
    return error.errno in _FULL
