"""The OpenVINO engine: exported graphs on a CPU, compiled once for a checkpoint; LoRAs of linear layers are inputs."""
