"""The reward service for programs outside the cluster: its paths, its format, and running it."""
