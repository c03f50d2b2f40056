"""Text that can be sent: JSON may hold half of a surrogate pair, for which UTF-8 has no bytes."""


def is_encodable(text: str) -> bool:
    """Whether `text` has a form in UTF-8."""
    if text.isascii():  # at once, also for a picture in a data URI
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
