"""Open-loop load with random arrivals: calls come as a Poisson process and wait for nothing, each on a free connection.

usage: poisson.py URL SERVICE RATE SECONDS [RATE SECONDS ...] [--retries N]
A line for each RATE, of the calls that came in its time: offered, answered and refused a second, other errors, p50 and p99 in ms
of those answered. With --retries a refused call comes again when Retry-After says, so often at most; `retried` counts
those of its time, whenever the call came first. hey's connections tick together, and a burst of ten calls is
another thing than ten calls in that time.
"""

import asyncio
import json
import random
import sys
import time
from urllib.parse import urlsplit

args = sys.argv[1:]
retries = int(args.pop()) if args[-2] == "--retries" else 0
args = [arg for arg in args if arg != "--retries"]
url, service = urlsplit(args[0]), args[1]
spans = [(float(rate), float(seconds)) for rate, seconds in zip(args[2::2], args[3::2])]
body = json.dumps({"service": service, "body": "row"}).encode()
request = (
    f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
).encode() + body
free = []


class Span:
    """What became of the calls of one RATE."""

    def __init__(self):
        self.offered = self.refused = self.other = self.retried = 0
        self.took = []

    def line(self, seconds):
        """For whoever measures."""
        took = sorted(self.took)
        at = lambda part: took[min(int(len(took) * part), len(took) - 1)] if took else 0.0
        per = lambda count: f"{count / seconds:.0f}"
        retried = f" retried {per(self.retried)}" if retries else ""
        return (f"offered {per(self.offered)}{retried} answered {per(len(took))} refused {per(self.refused)} "
                f"other {self.other} p50 {at(0.5):.1f} p99 {at(0.99):.1f}")


results = [Span() for _ in spans]
now = results[0]


async def answer():
    """The status of one try, and when to come again."""
    reader, writer = free.pop() if free else await asyncio.open_connection(url.hostname, url.port)
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    field = lambda name, default: int((head.split(name)[1:] or [default])[0].split(b"\r\n")[0])
    await reader.readexactly(field(b"content-length: ", b""))
    if b"connection: close" in head:
        writer.close()
    else:
        free.append((reader, writer))
    return head.split(b" ")[1], field(b"retry-after: ", b"1")


async def call(span):
    """One call, from its arrival to its last answer."""
    since = time.perf_counter()
    for left in range(retries, -1, -1):
        try:
            status, again = await answer()
        except (OSError, asyncio.IncompleteReadError, IndexError, ValueError):
            span.other += 1
            return
        if status == b"200":
            span.took.append((time.perf_counter() - since) * 1000)
            return
        if status != b"429":
            span.other += 1
            return
        if left:
            await asyncio.sleep(again)
            now.retried += 1
    span.refused += 1


async def main():
    """Arrivals keep to their own clock: one that is late is followed by the next at once."""
    global now
    calls, due = [], time.perf_counter()
    for (rate, seconds), now in zip(spans, results):
        until = due + seconds
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            calls.append(asyncio.create_task(call(now)))
            now.offered += 1
            due += random.expovariate(rate)
    await asyncio.wait(calls, timeout=60)
    for (_, seconds), span in zip(spans, results):
        print(span.line(seconds))


asyncio.run(main())
