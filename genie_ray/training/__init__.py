"""Training the world model's parts with Ray Train: jobs, tasks, and one shared loop."""
