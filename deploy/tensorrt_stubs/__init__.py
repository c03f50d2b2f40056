"""The stubs of TensorRT's bindings in typings/, with which mypy checks the calls. The bindings have no types."""
