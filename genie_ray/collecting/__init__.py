"""Rollout workers that play games and write replay datasets: the plan, the elastic pool, the shards."""
