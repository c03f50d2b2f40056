"""Tokens for hosts that want one before they give a file (the Hub's gated models, Civitai)."""

from __future__ import annotations

import json
import re
from pathlib import Path

_OTHERS = 0o077  # permission bits of all but the owner
_HOST = re.compile(r"[a-z0-9.-]+(:\d{1,5})?")
_TOKEN = re.compile(r"[!-~]{1,4096}")


def read_host_credentials(path: Path) -> dict[str, str]:
    """Host (`huggingface.co`, or `host:port`) -> token, from a JSON object.

    Raises ValueError, which never holds a token: not such a file, or one that others than its owner may read.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise ValueError(f"{path} can be read by others: chmod 600 {path}")
        tokens = json.loads(path.read_text("utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path} is no file of JSON that can be read") from None
    if not isinstance(tokens, dict):
        raise ValueError(f'{path} is no JSON object {{"host": "token"}}')
    for host, token in tokens.items():
        if not _HOST.fullmatch(host) or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError(f"{path}: {host[:100]!r} is no host in small letters, or its token is none")
    return tokens
