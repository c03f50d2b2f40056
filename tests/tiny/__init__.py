"""Tiny checkpoints and LoRAs with the layout, names and topology of the genuine ones.

`python -m tests.tiny FOLDER` writes them; `write_all(FOLDER)` does so from Python and skips what is complete;
`tiny_folder()` is a folder that all tests share.
"""

from tests.tiny.folder import tiny_folder, write_all

__all__ = ["tiny_folder", "write_all"]
