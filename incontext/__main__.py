"""`python -m incontext`."""

from incontext.cli import main

main()
