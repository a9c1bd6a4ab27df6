"""`python -m demos`: the same as `incontext demo`."""

import sys

from incontext.cli.app import main

sys.argv[1:1] = ["demo"]
main()
