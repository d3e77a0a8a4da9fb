"""Open-loop load with random arrivals: calls come as a Poisson process and wait for nothing, each on a free connection.

usage: poisson.py URL SERVICE RATE SECONDS
One line: offered, answered and refused a second, other errors, p50 and p99 in ms of those answered, and their mean wait.
hey's connections tick together, and a burst of ten calls is another thing than ten calls in that time.
"""

import asyncio
import json
import random
import sys
import time
from urllib.parse import urlsplit

url, service, rate, seconds = urlsplit(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
body = json.dumps({"service": service, "body": "row"}).encode()
request = (
    f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
).encode() + body
free, took, counts = [], [], {"refused": 0, "other": 0}


async def call():
    """One call, from its arrival to the end of its answer."""
    since = time.perf_counter()
    try:
        reader, writer = free.pop() if free else await asyncio.open_connection(url.hostname, url.port)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    except (OSError, asyncio.IncompleteReadError, IndexError):
        counts["other"] += 1
        return
    status = head.split(b" ")[1]
    if status == b"200":
        took.append((time.perf_counter() - since) * 1000)
    else:
        counts["refused" if status == b"429" else "other"] += 1
    if b"connection: close" in head:
        writer.close()
    else:
        free.append((reader, writer))


async def main():
    """Arrivals keep to their own clock: one that is late is followed by the next at once."""
    calls, began = [], time.perf_counter()
    due = began
    while due < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        calls.append(asyncio.create_task(call()))
        due += random.expovariate(rate)
    await asyncio.wait(calls, timeout=30)
    took.sort()
    at = lambda part: took[min(int(len(took) * part), len(took) - 1)] if took else 0.0
    per = lambda count: f"{count / seconds:.0f}"
    print(f"offered {per(len(calls))} answered {per(len(took))} refused {per(counts['refused'])} "
          f"other {counts['other']} p50 {at(0.5):.1f} p99 {at(0.99):.1f}")


asyncio.run(main())
