"""`python -m facefit`, where the command `facefit` is not on the path."""

from facefit.cli import main

main()
