"""What a person, or a script, sees of webhooks as they arrive: one line each, in columns and colours, or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from rich.console import Console
from rich.text import Text

from ops.listen.receiver import Arrival, SequencePlace

_COLUMNS = (("time", 12), ("event", 26), ("payment", 30), ("seq", 4), ("try", 10), ("signature", 12), ("order", 10))
_COLOURS: Mapping[SequencePlace, str] = {
    SequencePlace.NEXT: "green",
    SequencePlace.FIRST: "cyan",
    SequencePlace.AGAIN: "yellow",
    SequencePlace.LATE: "magenta",
    SequencePlace.GAP: "red",
    SequencePlace.NONE: "dim",
}


class Screen:
    """What the person, or the script, gets to see."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self.counted: Counter[str] = Counter()

    def begin(self, url: str, endpoint: str | None, secrets: tuple[str, ...]) -> None:
        if self._as_json:
            self._line({"object": "listening", "url": url, "endpoint_id": endpoint, "secrets": secrets})
            return
        self._console.print(f"listening at {url}")
        if endpoint is not None:
            self._console.print(f"registered as {endpoint}; its secret: {secrets[0]}")
        elif not secrets:
            self._console.print("signatures are not checked: give --secret, or --register", style="yellow")
        self._console.print("".join(name.ljust(width + 1) for name, width in _COLUMNS) + "answered", style="bold")

    def show(self, arrival: Arrival) -> None:
        self.counted["requests"] += 1
        self.counted[arrival.place] += 1
        self.counted["wrong"] += not arrival.verified
        if self._as_json:
            self._line(
                {
                    "object": "arrival",
                    "at": datetime.now().astimezone().isoformat(),
                    "id": arrival.id,
                    "type": arrival.type,
                    "payment": arrival.subject,
                    "sequence": arrival.sequence,
                    "previous_sequence": arrival.previous,
                    "attempt": arrival.attempt,
                    "waited_s": arrival.waited_s,
                    "signature": arrival.signature,
                    "verified": arrival.verified,
                    "order": arrival.place,
                    "status": arrival.status,
                    "event": arrival.event,
                }
            )
            return
        sequence = "" if arrival.sequence is None else str(arrival.sequence)
        waited = "" if arrival.waited_s is None else f" +{arrival.waited_s:.1f}s"
        clock = datetime.now().strftime("%H:%M:%S.%f")[:12]
        attempt = f"{arrival.attempt}{waited}"
        cells = (clock, arrival.type, arrival.subject, sequence, attempt, arrival.signature, arrival.place)
        styles = ("dim", "bold", "", "", "", "green" if arrival.verified else "red", _COLOURS[arrival.place])
        line = Text()
        for cell, (_, width), style in zip(cells, _COLUMNS, styles, strict=True):
            line.append(_plain(cell).ljust(width + 1), style=style)
        line.append(str(arrival.status), style="green" if arrival.status < 300 else "red")
        self._console.print(line)

    def distinct(self) -> int:
        """Events that were acknowledged, each once."""
        return sum(
            self.counted[place] for place in SequencePlace if place not in (SequencePlace.AGAIN, SequencePlace.NONE)
        )

    def end(self, again: str | None = None) -> None:
        """`again`: how to listen once more to what was told to this one."""
        if not self._as_json:
            self._console.print(
                f"{self.counted['requests']} requests, {self.distinct()} events; "
                f"again: {self.counted[SequencePlace.AGAIN]}, "
                f"late: {self.counted[SequencePlace.LATE]}, gaps: {self.counted[SequencePlace.GAP]}, "
                f"wrong signatures: {self.counted['wrong']}"
            )
            if again is not None:
                self._console.print(f"the endpoint is kept; listen again with: {again}")

    def _line(self, document: dict[str, object]) -> None:
        print(json.dumps(document), flush=True)


def _plain(text: str) -> str:
    """Text of whoever sent it, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
