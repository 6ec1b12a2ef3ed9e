"""Training RLlib agents as a stage; the test agents."""
