"""Places at which a process dies when it is told to, to prove that nothing is lost there. Off unless `ALEPH_FAILPOINT`
names one of them; production refuses to start with it.

    K0   a turn is written, and not committed          K6   the last text has come, the reply is not closed
    K1   a turn is committed, nobody was rung          K7   a reply is being closed, money has moved, not committed
    K2   the bell was heard, nobody has claimed        K8   the closing is committed, and nobody knows it
    K3   a reply is claimed, no provider was asked     K9   its viewers are about to be told
    K5   more text comes                               K10  its viewers were told
    K12  a call failed and is logged, another          K11  the sweep hands a reply back, not committed
         route is about to be asked

K4, between a request and its first byte, is inside of an adapter: who wants to kill there waits for the provider to be
asked.
"""

import os
import signal
from typing import Literal

Point = Literal["K0", "K1", "K2", "K3", "K5", "K6", "K7", "K8", "K9", "K10", "K11", "K12"]

ARMED = os.environ.get("ALEPH_FAILPOINT", "")


def reach(point: Point) -> None:
    """Die here, without a word, if this point is armed."""
    if point == ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
