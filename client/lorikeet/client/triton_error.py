"""Triton's own error texts in plain words, without keys of shared memory, stack traces and names of its processes."""

import re

from lorikeet.protocol.errors import INTERNAL, UNAVAILABLE
from lorikeet.protocol.tensors import IMAGE_MODEL

# Triton's ensemble scheduler puts this before a stage's error message. No option in `tritonserver --help` removes it.
_ENSEMBLE_PREFIX = f"in ensemble '{IMAGE_MODEL}', "

# The texts of the Python backend (src/shm_manager.cc, src/python_be.cc, src/pb_stub.cc), with the status that fits.
_TEXTS = (
    (
        re.compile(r"^Failed to (increase the shared memory pool|create new mapped region)"),
        "the server's shared memory is full: try again later, send smaller files, or start the server with a larger "
        "/dev/shm (docker run --shm-size)",
        UNAVAILABLE,
    ),
    (re.compile(r"^Stub process .*not healthy"), "a stage of the server has ended: try again later", UNAVAILABLE),
    (re.compile(r"^Failed to process the request"), "the server failed; its log says more", INTERNAL),
)


def plain_error(message: str, status: str) -> tuple[str, str]:
    """The message and the status of an error, with Triton's own texts replaced; a stage's message stays."""
    message = message.removeprefix(_ENSEMBLE_PREFIX)
    for pattern, plain, fitting in _TEXTS:
        if pattern.search(message):
            return plain, fitting
    return message, status
