"""Removes a picture's metadata before it is decoded, and reads the orientation from it."""
