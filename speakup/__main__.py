"""Run the command line as `python -m speakup`."""

import sys

from speakup.cli import main

if __name__ == "__main__":
    sys.exit(main())
