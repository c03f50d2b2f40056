"""The TensorRT engine: plans of exported graphs on an NVIDIA GPU, refitted with the weights of each request."""
