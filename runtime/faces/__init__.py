"""Faces in pictures: found and embedded by the networks of an InsightFace pack, in a process of their own."""
