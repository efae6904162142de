"""`python -m virtus`: the command line."""

from virtus.cli.main import main

main()
