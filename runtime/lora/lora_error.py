"""What is wrong with a LoRA file."""

from __future__ import annotations


class LoraError(ValueError):
    """The file does not fit the checkpoint; the message lists what differs and is fit for the client."""
