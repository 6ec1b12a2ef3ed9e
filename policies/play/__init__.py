"""Play: fragments for a learner, and acting with a trained policy."""
