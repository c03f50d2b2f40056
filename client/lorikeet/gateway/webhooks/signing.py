"""Ed25519 signatures of webhooks, and the public key as a JSON web key set."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class WebhookSigner:
    """Signs with the key of a 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def headers(self, request_id: str, user_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The headers of a webhook. Signed are the lines request id, user id, timestamp, hex SHA-256 of the body."""
        signed = "\n".join([request_id, user_id, str(timestamp), hashlib.sha256(body).hexdigest()])
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": str(timestamp),
            "X-Fal-Webhook-Signature": self._key.sign(signed.encode()).hex(),
        }

    def key_set(self) -> dict[str, Any]:
        """The key set. It holds the key twice: fal's documented Python verifier decodes `x` only with its padding,
        which RFC 8037 leaves out."""
        padded = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).decode()
        kid = hashlib.sha256(padded.encode()).hexdigest()[:16]
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": padded.rstrip("=")},
                {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": f"{kid}-padded", "x": padded},
            ]
        }
