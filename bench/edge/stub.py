#!/usr/bin/env python3
"""A worker that takes 10 ms for each row and can do nothing faster: `sheaf worker --serve -- python3 stub.py`."""
import heapq
import json
import sys
import threading
import time

SECONDS = 0.010

due, lock = [], threading.Condition()


def answer():
    while True:
        with lock:
            while not due:
                lock.wait()
            at, row = due[0]
            left = at - time.monotonic()
            if left > 0:
                lock.wait(left)
                continue
            heapq.heappop(due)
        sys.stdout.write(json.dumps({"id": row, "output": "ok"}) + "\n")
        sys.stdout.flush()


threading.Thread(target=answer, daemon=True).start()
for line in sys.stdin:
    row = json.loads(line)["id"]
    with lock:
        heapq.heappush(due, (time.monotonic() + SECONDS, row))
        lock.notify()
