"""How well world models simulate and obey: scores, predictors, rollouts, the papers' figures."""
