"""The metrics of an edge of several processes: whichever of them is asked answers for all.

A scrape that met another process each time would see counters go backwards. So each process tells its own at its own
door, every sample with the label `process`, and who is asked puts all of them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import aiohttp
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

_PATIENCE_S = 1.0  # below the time-out of a scrape (10 s), and of whoever looks by hand
_ANSWERS = "penstock_edge_process_answers"


class OfProcess(Collector):
    """The metrics of a registry, with the number of the process as a label of each sample."""

    def __init__(self, registry: CollectorRegistry, number: int) -> None:
        self._registry, self._number = registry, str(number)

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, "process": self._number}) for sample in family.samples
            ]
            yield family


def of_process(registry: CollectorRegistry, number: int) -> CollectorRegistry:
    """The same as a registry."""
    labelled = CollectorRegistry()
    labelled.register(OfProcess(registry, number))
    return labelled


async def of_all(ports: Sequence[int]) -> bytes:
    """In Prometheus' text format. Of a process that does not answer within a second there is a 0, and nothing else."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE_S)) as session:
        texts = await asyncio.gather(*(_told(session, port) for port in ports))
    lines = [f"# HELP {_ANSWERS} Whether this process of the edge told its metrics.", f"# TYPE {_ANSWERS} gauge"]
    lines += [f'{_ANSWERS}{{process="{number}"}} {int(text is not None)}' for number, text in enumerate(texts, 1)]
    return "\n".join([*lines, merged([text for text in texts if text is not None])]).encode()


def merged(texts: Sequence[str]) -> str:
    """Several expositions as one: the samples of a family stand together, below one HELP and one TYPE."""
    families: dict[str, list[str]] = {}
    for text in texts:
        for block in text.removeprefix("# HELP ").split("\n# HELP "):
            about, _, rest = block.partition("\n")
            kind, _, samples = rest.partition("\n")
            families.setdefault(f"# HELP {about}\n{kind}", []).append(samples.rstrip("\n"))
    blocks = ("\n".join([head, *filter(None, samples)]) for head, samples in families.items() if head != "# HELP \n")
    return "\n".join(blocks) + "\n"


async def _told(session: aiohttp.ClientSession, port: int) -> str | None:
    try:
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            return await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
