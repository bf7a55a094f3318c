"""Work in a process of its own, for what this one must not have loaded."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from seqrpc.cli.endings import FAILED, OK, Ending, status_of, told
from seqrpc.cli.screen import Screen


def done_apart(work: Callable[[], Any], screen: Screen) -> Any:
    """Do something in a child, and return what that returned, as JSON has it.

    Args:
        work: what is done. If it fails, the child tells that.
        screen: where it does.

    Raises:
        Ending: it failed, and that is told already, or the child died.
    """
    screen.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - nothing is measured in what ends so
        status = FAILED
        try:
            os.close(reading)
            status = hand_over(work, writing, screen)
            screen.flush()
        finally:
            os._exit(status)  # it must not return into what its parent does
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        raise Ending(FAILED, f"the process that was to load it died of {signal.Signals(-status).name}")
    if status or not data:
        raise Ending(status or FAILED)
    return json.loads(data)


def hand_over(work: Callable[[], Any], writing: int, screen: Screen) -> int:
    """Do something, and write what it returned to a descriptor, which is closed; return the exit status that tells how.

    Args:
        work: what is done. Whatever it raises is told.
        writing: where the JSON goes.
        screen: where it is told.
    """
    with open(writing, "wb") as file:
        try:
            file.write(json.dumps(work()).encode())
        except KeyboardInterrupt:  # the parent has it, too
            return FAILED
        except BaseException as exc:
            screen.complain(told(exc))
            return status_of(exc)
    return OK
