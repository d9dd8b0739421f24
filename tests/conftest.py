"""For all tests: Ctrl-C means what it means in a terminal, for us and for the programs that the tests start.

A run that was started in the background inherits that SIGINT is ignored, and hands it on to every process of its own.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
