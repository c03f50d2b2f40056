"""Tokens that the gateway signs: of one purpose, for a time, unchanged."""

from __future__ import annotations

import pytest

from lorikeet.gateway.signed_tokens import TokenSigner

SIGNER = TokenSigner(bytes(32))


def test_a_token_gives_its_payload_back() -> None:
    token = SIGNER.sign("upload", {"name": "a"}, 60)
    found = SIGNER.read("upload", token)
    assert found is not None and found["name"] == "a"


def test_another_purpose_another_secret_and_a_passed_time_are_refused() -> None:
    token = SIGNER.sign("upload", {"name": "a"}, 60)
    assert SIGNER.read("browser", token) is None
    assert TokenSigner(bytes([1] * 32)).read("upload", token) is None
    assert SIGNER.read("upload", SIGNER.sign("upload", {}, -1)) is None


@pytest.mark.parametrize("change", [lambda t: t[:-2], lambda t: "x" + t, lambda t: t.split(".")[0], lambda t: "ä.é"])
def test_a_changed_token_is_refused(change: object) -> None:
    assert callable(change)
    assert SIGNER.read("upload", change(SIGNER.sign("upload", {"name": "a"}, 60))) is None
