"""A sweep of two short trials: one is measured, the other stopped early. To be given `world_model` and `test`."""

BROAD, NARROW = {"num_envs": 1, "steps_per_epoch": 50}, {"num_envs": 2, "steps_per_epoch": 25}
LEARNING = {"iterations": 2, "batch_size": 2, "window": 6, "warmup_iterations": 0, "validation_windows": 2}
TINY = {
    "grace_epochs": 1,
    "reduction_factor": 2,
    "max_concurrent": 1,
    "parameters": {"exploration.learning": [BROAD, NARROW]},
    "run": {
        "games": ["Kangaroo-Atari2600-v0"],
        "env": {"max_episode_steps": 60},
        "collection": {"steps_per_shard": 60},
        "exploration": {
            "algorithm": "vtrace",
            "epochs": 3,
            "checkpoint_every": 1,
            "network": {"channels": [4, 4, 8, 8], "lstm_size": 16},
            "learning": {
                "updates_per_epoch": 1,
                "sequences_per_update": 2,
                "replay_capacity": 1000,
                "evaluation_every": 5,
            },
        },
        "tune_decoder": LEARNING,
        "finetune": LEARNING,
        "evaluation": {"windows_per_game": 2, "decoding": {"steps": 2}},
    },
}
