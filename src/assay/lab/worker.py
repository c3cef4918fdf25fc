"""A worker process: orders in as JSON lines, progress and outcomes out. Ends as soon as its parent is gone."""

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from assay.lab.work import Order, perform


def main() -> None:
    """Perform orders until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    # What a study prints must not mix with the messages.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()
    orders: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(line)
        # End of input: the parent is gone, or has nothing more for us. A trial in progress has nobody to report to.
        os._exit(0)

    def send(message: dict[str, Any]) -> None:
        with lock:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

    threading.Thread(target=listen, daemon=True).start()
    while True:
        order = Order.parse(json.loads(orders.get()))
        outcome = perform(order, lambda fraction: send({"fraction": fraction}))
        send(
            {
                "status": outcome.status,
                "error": outcome.error,
                "trace": outcome.trace,
                "pairs": outcome.pairs,
                "fatal": outcome.fatal,
            }
        )


if __name__ == "__main__":
    main()
