"""What the engines of exported graphs share: reading the graphs, the inputs of a call, and LoRAs as inputs."""
