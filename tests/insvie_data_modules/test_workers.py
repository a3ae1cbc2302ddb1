import multiprocessing
import os
import signal
import time
from typing import Any

from insvie_data_modules.workers import outlast_signals


def work(ready: Any) -> None:
    outlast_signals(0)
    ready.set()
    time.sleep(30)


def test_a_worker_outlasts_the_signals_of_its_run_but_not_its_end() -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=work, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(20)
    for signum in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        os.kill(worker.pid or 0, signum)
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
