"""Reads a JSON object of an untrusted file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.checkpoints.checks import CheckpointError

MAX_JSON_BYTES = 8 << 20
_MAX_DEPTH = 32


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The object in a file. `name` is for messages. Raises CheckpointError."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{name} is too large: expected at most {MAX_JSON_BYTES} bytes")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read") from error
    return parse_json(content, name)


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """The object in a content of at most `MAX_JSON_BYTES`. `name` is for messages. Raises CheckpointError."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
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
