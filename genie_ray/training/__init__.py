"""Training the world model's parts with Ray Train: jobs, tasks, and the one loop."""
