"""The one exception a user meets: a sentence that says what was wrong and what would be right."""


class PackingError(ValueError):
    """Bad input, or a run that cannot go on; the message is written for the person who reads it."""
