"""Evaluating world models: scores, predictors, rollouts, and the papers' figures."""
