"""AutoExplore: the curiosity-only actor-critic."""
