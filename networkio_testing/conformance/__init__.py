"""Conformance: scripts that say what an implementation of the protocol does, and runners that hold it to them.

Theory of operation
-------------------
``scripts/`` holds the cases as text, one file a chapter of the specification (:mod:`.script` reads them, and
:mod:`.values` what they say).  :mod:`.play` plays one of them by frames that :mod:`.codec` makes and reads, which was
written from the specification alone.  Where it is played is a stage: :mod:`.bare` is the bare core with a virtual clock
and an application by command, :mod:`.wire` any program that serves the echo application at a port, as :mod:`.echo`
does.  :mod:`.report` and :mod:`.command` are for ``python -m networkio_testing conformance``.
"""

from .bare import BareStage
from .play import Failure, Player
from .script import Case, load
from .values import ScriptError

__all__ = ["BareStage", "Case", "Failure", "Player", "ScriptError", "load"]
