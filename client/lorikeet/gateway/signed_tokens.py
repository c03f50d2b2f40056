"""Tokens that the gateway signs: for uploads, and for browsers in place of a key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any


class TokenSigner:
    """Makes and reads tokens `<payload>.<signature>`, base64url. A token of one `purpose` is invalid for others."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, purpose: str, payload: dict[str, Any], seconds: float) -> str:
        """A token that is valid for `seconds`."""
        body = _encode(json.dumps(payload | {"exp": time.time() + seconds}).encode())
        return f"{body}.{_encode(self._mac(purpose, body))}"

    def read(self, purpose: str, token: str) -> dict[str, Any] | None:
        """The payload of a valid token, else None."""
        body, _, signature = token.partition(".")
        try:
            if not hmac.compare_digest(_decode(signature), self._mac(purpose, body)):
                return None
            payload: dict[str, Any] = json.loads(_decode(body))
        except (ValueError, binascii.Error):
            return None
        return payload if payload["exp"] > time.time() else None

    def _mac(self, purpose: str, body: str) -> bytes:
        return hmac.digest(self._secret, f"{purpose}\n{body}".encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
