"""PPO: on frames, with held actions; for the game's own reward, and for a judge's."""
