"""``python -m networkio_threads`` is the ``networkio`` command, which is a program of its own."""

import sys

from networkio_command.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
