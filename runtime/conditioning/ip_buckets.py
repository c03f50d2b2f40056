"""The sizes of the token axis of image prompts. Importing this needs no torch."""

from __future__ import annotations

# The tokens of the published kinds: base, plus, full. The axis has one of these sizes, or a multiple of the last.
_BUCKETS = (4, 16, 257)


def token_bucket(tokens: int) -> int:
    """The size of the axis for the largest of a request's prompts. It follows from the request alone."""
    for bucket in _BUCKETS:
        if tokens <= bucket:
            return bucket
    return -(-tokens // _BUCKETS[-1]) * _BUCKETS[-1]
