"""Weights as data: weight sets, the changes that LoRAs make, and their sum."""
