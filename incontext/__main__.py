"""`python -m incontext`."""

from incontext.cli.app import main

main()
