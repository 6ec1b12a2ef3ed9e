"""Pages in the browser: a person plays in the world model, beside the game itself."""
