"""Values that fall while an agent learns."""


def decayed(start: float, end: float, steps: int, done: int) -> float:
    """A value that falls linearly from `start` to `end` within `steps` steps, after `done` of them."""
    return end if done >= steps else start + done / steps * (end - start)
