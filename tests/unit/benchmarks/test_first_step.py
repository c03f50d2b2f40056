"""The time before the first step does not count the encoders."""

from __future__ import annotations

import pytest

from benchmarks.first_step import time_until_first_step


def test_the_encoders_take_the_sum_of_their_times_as_they_run_one_after_the_other() -> None:
    timings = {
        "prepare": 0.02,
        "text_encoder": 0.4,
        "text_encoder_load": 0.1,  # part of text_encoder
        "vae_encoder": 0.3,
        "vae_encoder_load": 0.05,  # part of vae_encoder
        "denoiser_load": 0.15,
        "denoiser": 0.5,
        "vae_decoder": 0.25,
        "finish": 0.05,
        "total": 1.67,
    }
    encoders, rest = time_until_first_step(1.7, timings)
    assert encoders == pytest.approx(0.7)
    assert rest == pytest.approx(0.2), "prepare, the denoiser's load and the transport remain"
