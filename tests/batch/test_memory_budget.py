"""The memory budget for files that are processed at the same time."""

import threading
import time

import pytest
import torch

from vrdir.batch.memory_budget import BudgetClosedError, MemoryBudget, share_of_memory


def test_budget_is_never_exceeded_and_a_large_file_has_all_threads() -> None:
    budget, lock = MemoryBudget(100), threading.Lock()
    now, most, threads_of_large = [0], [0], []

    def work(size: int) -> None:
        torch.set_num_threads(1)
        with budget.reserve(size):
            with lock:
                now[0] += min(size, 100)
                most[0] = max(most[0], now[0])
            if size >= 100:
                threads_of_large.append(torch.get_num_threads())
                assert now[0] == 100
            time.sleep(0.01)
            with lock:
                now[0] -= min(size, 100)
        assert torch.get_num_threads() == 1

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        budget.threads = 2
        workers = [
            threading.Thread(target=work, args=(size,))
            for size in (40, 40, 1000, 60, 100, 30, 30, 30, 10)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        torch.set_num_threads(before)
    assert 40 < most[0] <= 100
    assert threads_of_large == [2, 2]
    assert budget._reserved == 0


def test_memory_is_released_after_an_error() -> None:
    budget = MemoryBudget(10)
    for _ in range(2):
        try:
            with budget.reserve(None):
                raise ValueError("no image")
        except ValueError:
            pass
    with budget.reserve(10):
        pass


def test_thread_that_waits_for_a_closed_budget_gives_up() -> None:
    budget, gave_up = MemoryBudget(10), []

    def wait() -> None:
        try:
            with budget.reserve(None):
                raise AssertionError("there was not enough memory")
        except BudgetClosedError:
            gave_up.append(True)

    with budget.reserve(5):
        waiting = threading.Thread(target=wait)
        waiting.start()
        budget.check()
        budget.close()
        waiting.join(10)
        with pytest.raises(BudgetClosedError):
            budget.check()
    assert gave_up == [True]


def test_machine_has_memory() -> None:
    assert share_of_memory() > 100 << 20
