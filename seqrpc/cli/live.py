"""A server's state on a terminal, drawn anew in each interval until a key ends it."""

from __future__ import annotations

import io
import os
import signal
from typing import IO, Final

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from seqrpc.cli import figures
from seqrpc.cli.dashboard import View, frame
from seqrpc.cli.endings import die_of
from seqrpc.cli.looks import Looked, Looker, Lookout, has_ended, is_final, looks, trouble
from seqrpc.cli.places import Elsewhere, Place
from seqrpc.cli.rates import NAME, SORTS, rates_of
from seqrpc.cli.screen import DUMB, Screen, has_colours
from seqrpc.cli.window import Window, size_of
from seqrpc.interface.stats import Stats

_STDIN: Final = 0


def console_on(file: IO[str], size: tuple[int, int], *, is_live: bool = False) -> Console:
    """Return what writes to a file as a window of that size, in colours if it has any, and with nothing interpreted."""
    width, height = size
    return Console(
        file=file,
        width=width,
        height=height,
        color_system="auto" if has_colours(file) else None,
        force_terminal=is_live or None,
        force_interactive=is_live or None,
        markup=False,
        highlight=False,
        emoji=False,
    )


def _live(console: Console) -> Live:
    return Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)


def prepare() -> None:
    """Load what is needed to draw, as long as this user may read it."""
    with _live(console_on(io.StringIO(), (80, 24), is_live=True)) as live:
        live.update(Text("é…\u4e00"), refresh=True)


class Watched:
    """A server that is looked at.

    Args:
        address: as it was typed.
        place: where it leads.
        looker: what looks there.
        first: the first look.
        sort: what methods are sorted by.
    """

    def __init__(self, address: str, place: Place, looker: Looker, first: Stats, sort: str) -> None:
        """Show the first look."""
        self._looker = looker
        self._before: Stats | None = first  # the look that the next one is compared with, at the same server
        self._view = View(
            address=address,
            services=looker.services,
            stats=first,
            rates=rates_of(None, first),
            sort=sort,
            user=str if isinstance(place, Elsewhere) else figures.user,
        )

    def write(self, screen: Screen) -> None:
        """Write it once, whole."""
        width, height = size_of(screen.out)
        console = console_on(screen.out, (width, height))
        for line in frame(self._view, width):
            console.print(line, soft_wrap=True, end="\n")

    def show(self, screen: Screen, interval: float) -> None:
        """Draw it until a key or a signal ends that; on a terminal that only knows lines, write it again and again.

        Raises:
            KeyboardInterrupt: Ctrl-C ended it.
            Exception: no look will succeed any more.
        """
        if os.environ.get("TERM", "").lower() in DUMB:
            for look in looks(screen, self._looker, self._view.stats, interval):
                self._view = self._view._replace(stats=look.stats, rates=look.rates, services=self._looker.services)
                self.write(screen)
                screen.line()
                screen.flush()
            return
        with Window(screen.out, _STDIN) as window:
            lookout = Lookout(self._looker, interval, window.wake)
            lookout.start()
            try:
                self._draw(window, screen.out, lookout, interval)
            finally:
                lookout.end()
        if window.ended_by == signal.SIGINT:
            raise KeyboardInterrupt
        if window.ended_by is not None:
            die_of(window.ended_by)

    def _draw(self, window: Window, out: IO[str], lookout: Lookout, interval: float) -> None:
        keys = "q ends it" if window.has_keys else "Ctrl-C ends it"
        console = console_on(out, window.size(), is_live=True)
        with _live(console) as live:
            while window.ended_by is None:
                console.size = ConsoleDimensions(*window.size())
                view = self._view._replace(hint=f"every {interval:g} s, by {self._view.sort}; {keys}")
                live.update(Text("\n").join(frame(view, *console.size)), refresh=True)
                pressed = window.wait()
                if "q" in pressed or "Q" in pressed:
                    return
                if "s" in pressed:
                    self._sort_by_the_next()
                if window.is_to_stop:
                    live.stop()
                    window.stop()
                    live.start()
                self._look(lookout.take(), interval)

    def _sort_by_the_next(self) -> None:
        orders = (*SORTS, NAME)
        self._view = self._view._replace(sort=orders[(orders.index(self._view.sort) + 1) % len(orders)])

    def _look(self, looked: Looked | None, interval: float) -> None:
        if looked is None:
            return
        if looked.stats is None:
            assert looked.error is not None
            if is_final(self._looker, looked.error):
                raise looked.error
            if has_ended(looked.error):
                self._before = None
            self._view = self._view._replace(trouble=trouble(looked.error, interval))
        else:
            rates, self._before = rates_of(self._before, looked.stats), looked.stats
            self._view = self._view._replace(
                stats=looked.stats, rates=rates, services=self._looker.services, trouble=""
            )
