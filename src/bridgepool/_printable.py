"""Texts of peers, fit for the lines of a log, for screens and for every database."""


def printable(text: str, most: int = 300) -> str:
    """Return the first `most` characters of a text; what cannot be printed becomes ``?``."""
    cut = text[:most]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)
