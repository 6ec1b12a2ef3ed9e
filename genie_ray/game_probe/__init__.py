"""What each action of a game does, found by playing it."""
