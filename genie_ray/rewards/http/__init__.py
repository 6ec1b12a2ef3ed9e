"""The reward service for programs outside the cluster: its endpoints, its wire format, and running it."""
