"""Replay in other formats: GenieRedux's published layout, and plain clips."""
