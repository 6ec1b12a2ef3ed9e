"""Agent57-style test agents: recurrent Q-learning, novelty of two kinds, and a bandit over exploring and exploiting."""
