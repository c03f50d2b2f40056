"""The speed-up of a request's forward passes counts each network as often as a request calls it."""

from __future__ import annotations

import pytest

from benchmarks.cases.engines import forwards_speedup


def test_the_unet_counts_once_a_step_and_the_text_encoder_twice() -> None:
    seconds = {
        "text_encoder": {"torch": [1.0, 1.0, 9.0], "openvino": [0.5]},
        "vae_encoder": {"torch": [4.0], "openvino": [2.0]},
        "unet": {"torch": [10.0], "openvino": [5.0]},
        "vae_decoder": {"torch": [14.0], "openvino": [14.0]},
    }
    assert forwards_speedup(seconds, "openvino", steps=8) == pytest.approx(100 / 57)
