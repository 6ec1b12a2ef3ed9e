"""Play in other layouts: GenieRedux's published one, and plain clips."""
