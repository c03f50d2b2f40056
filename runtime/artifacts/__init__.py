"""Exported graphs on disk: `export/` writes them, engines read them. Importing this needs neither torch nor onnx.

A graph belongs to an architecture and holds no weights. So all checkpoints of the architecture share it.
"""
