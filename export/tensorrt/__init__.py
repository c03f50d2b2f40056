"""Builds TensorRT plans from exported graphs, with TensorRT or TensorRT-RTX. The latter needs no GPU."""
