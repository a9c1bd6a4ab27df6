"""`python -m demos`: the same as `incontext demo`."""

import sys

from incontext.cli import main

sys.argv[1:1] = ["demo"]
main()
