"""The commands of `genie-ray`, by subject; cli.py puts them together. Thin: parse, call, print."""
