"""`python -m genie_ray`: the command line, in case the `genie-ray` script is not on the path."""

from genie_ray.cli import main

main()
