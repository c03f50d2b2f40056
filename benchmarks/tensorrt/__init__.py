"""TensorRT plans of the published sizes: built without a GPU, and checked on one."""
