"""Host tokens: bearer tokens for hosts that require one for a download (the Hub's gated models, Civitai)."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lorikeet.protocol.shorten import shorten

_OTHERS = 0o077  # permission bits of all but the owner
_HOST = re.compile(r"[a-z0-9.-]+(:\d{1,5})?")
_TOKEN = re.compile(r"[!-~]{1,4096}")


def read_host_credentials(path: Path) -> dict[str, str]:
    """Read host (`huggingface.co`, or `host:port`) -> host token from a JSON object.

    Raises ValueError for an invalid file and for a file that users other than its owner may read. Its message never
    contains a token.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise ValueError(f"{path} can be read by other users: run chmod 600 {path}")
        host_tokens = json.loads(path.read_text("utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path} is not a readable JSON file") from None
    if not isinstance(host_tokens, dict):
        raise ValueError(f'{path}: expected a JSON object {{"host": "token"}}')
    for host, token in host_tokens.items():
        if not _HOST.fullmatch(host) or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError(
                f"{path}: {shorten(host, 100)!r}: expected a lower-case host and a token of printable ASCII"
            )
    return host_tokens
