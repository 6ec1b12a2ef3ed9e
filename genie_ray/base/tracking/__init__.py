"""Trainings' metrics on servers that keep and compare them."""
