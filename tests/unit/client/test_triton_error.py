"""Triton's own error texts, as a client shows them."""

from __future__ import annotations

import pytest

from lorikeet.client.triton_error import plain_error

KEY = "triton_python_backend_shm_region_lorikeet-7-abcdefgh-job_table-1-0a1b"
DOCKER = "If you are running Triton inside docker, use '--shm-size' flag to control the shared memory region size."


@pytest.mark.parametrize("prefix", ["", "in ensemble 'lora_image_to_image', "])
@pytest.mark.parametrize(
    ("message", "plain", "status"),
    [
        # 24.10, then 25.07 and later
        (
            f"Failed to increase the shared memory pool size for key '{KEY}' to 1048576 bytes. {DOCKER}",
            "the server's shared memory is full",
            "UNAVAILABLE",
        ),
        (
            f"Failed to increase the shared memory pool size to 1048576 bytes. {DOCKER} Error: No space left on device",
            "the server's shared memory is full",
            "UNAVAILABLE",
        ),
        (
            f"Failed to create new mapped region for the grown shared memory region '{KEY}'. No such file or directory",
            "the server's shared memory is full",
            "UNAVAILABLE",
        ),
        ("Stub process 'prepare_0_0' is not healthy.", "a stage of the server has ended", "UNAVAILABLE"),
        (
            "Failed to process the request(s) for model 'prepare_0_0', message: UnicodeDecodeError: 'utf-8' codec"
            "\n\nAt:\n  /lorikeet/runtime/triton/stage_model.py(104): _call\n",
            "the server failed; its log says more",
            "INTERNAL",
        ),
    ],
)
def test_what_only_the_server_concerns_is_left_out(prefix: str, message: str, plain: str, status: str) -> None:
    found, code = plain_error(prefix + message, "INTERNAL")
    assert found.startswith(plain) and code == status
    for part in ("lorikeet-7", "prepare_0", "At:", ".py"):
        assert part not in found


@pytest.mark.parametrize(
    "message", ["loras[0].path: shared memory: not a file", "Request for unknown model: 'x' is not found", "no message"]
)
def test_other_messages_stay(message: str) -> None:
    assert plain_error(f"in ensemble 'lora_image_to_image', {message}", "INVALID_ARG") == (message, "INVALID_ARG")
