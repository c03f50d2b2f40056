"""The OpenVINO engine: exported graphs on a CPU, compiled once for a checkpoint; low-rank LoRAs are inputs."""
