"""A file whose single reads are bounded, for `zipfile`: it reads an archive's list of entries at once."""

from __future__ import annotations

import io

from runtime.files.safetensors_file import WeightFileError

MOST_BYTES = 4 << 20  # of a list of entries; thousands of tensors need less than one megabyte


class BoundedReads(io.FileIO):
    """Raises WeightFileError for a read of more than `MOST_BYTES`: a hostile list of entries would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_BYTES:
            raise WeightFileError(f"its list of entries has more than {MOST_BYTES} bytes, too many for weights")
        return super().read(size) or b""
