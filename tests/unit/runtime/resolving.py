"""What the tests of the file resolver share: contents of files, and how a value is read."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
from safetensors.numpy import save

from runtime.files.resolve import FileResolver, ResolveContext

PICTURE = b"\x00picture\xff" * 9  # its decoder sees more
WEIGHTS = save({"a": np.zeros(3, np.float32)})
CONTENT = {"image": PICTURE, "weights": WEIGHTS}
EVERY_KIND = tuple(CONTENT)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_source(sources: FileResolver, kind: str, value: str, request: ResolveContext) -> bytes:
    """The content behind a value, as a picture or as weights."""
    if kind == "image":
        return sources.image("field", value, request)
    stored = sources.lora("field", value, request)
    content = stored.path.read_bytes()
    assert stored.digest == sha256(content)
    return content


BASE64 = {kind: base64.b64encode(content).decode() for kind, content in CONTENT.items()}
LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
