"""The oracle: what unmodified diffusers pipelines answer to a request, in float32 on the CPU.

It shares no code with `runtime/`, so that the two can disagree.
"""

from tests.reference.error import relative_error
from tests.reference.multidiffusion import ReferenceTiles
from tests.reference.request import (
    Parts,
    ReferenceControlNet,
    ReferenceEmbedding,
    ReferenceIpAdapter,
    ReferenceLora,
    ReferenceRequest,
)
from tests.reference.run import ReferenceResult, reference

__all__ = [
    "Parts",
    "ReferenceControlNet",
    "ReferenceEmbedding",
    "ReferenceIpAdapter",
    "ReferenceLora",
    "ReferenceRequest",
    "ReferenceResult",
    "ReferenceTiles",
    "reference",
    "relative_error",
]
