"""The error of a LoRA file that cannot be used."""

from __future__ import annotations


class LoraError(ValueError):
    """The file does not fit the checkpoint. The message names the layers or keys and is fit for the client."""
