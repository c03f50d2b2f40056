"""Makes the engines' graphs: ONNX models without weights, one for each architecture. `python -m export --model ...`"""
