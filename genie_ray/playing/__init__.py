"""RLlib agents trained as a stage, and the test agents among them."""
