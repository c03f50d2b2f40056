"""The drawn pictures, their captions and styles: all training and evaluation data."""
