"""Reads a JSON file of an untrusted folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.checkpoints.checks import CheckpointError

_MAX_BYTES = 8 << 20
_MAX_DEPTH = 32


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The object in a file. `name` is for messages. Raises CheckpointError."""
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{name} is too large: expected at most {_MAX_BYTES} bytes")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} is not a JSON object")
    if _is_deep(value):
        raise CheckpointError(f"{name} is nested deeper than {_MAX_DEPTH} levels")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level if isinstance(node, dict | list) for child in _children(node)]
    return bool(level)


def _children(node: dict[str, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node
