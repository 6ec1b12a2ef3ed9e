"""What an error says, in one line, for the messages of play and of rewards."""


def last_line(error: BaseException) -> str:
    """An exception's type and the last non-empty line of its message, where Ray's wrappers put the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
