"""What a game's actions do, found by playing it."""
