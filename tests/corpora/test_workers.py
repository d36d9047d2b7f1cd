"""Worker processes: an ordered map that keeps few items in memory, passes errors on, and leaves nothing behind."""

import functools
import operator
import os
import sys

import pytest

from fairseq_lambda.corpora.batches import Batch
from fairseq_lambda.corpora.documents import Layout
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.splitting import SentenceSplitter, Splitting
from fairseq_lambda.corpora.workers import Workers

HOW = Splitting(Layout(False, False), False, "en", "text", None)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order_and_few_items_are_under_way(count):
    taken = 0

    def items():
        nonlocal taken
        for taken in range(1, 101):
            yield [taken, "x" * 100_000]

    with Workers(count, operator.itemgetter, 0) as pool:
        for number, result in enumerate(pool.map(items()), start=1):
            assert result == number
            assert taken <= number + 2 * count
    assert number == 100


def test_a_worker_imports_neither_torch_nor_fairseq():
    load = "[__import__('importlib').import_module('fairseq_lambda.corpora.' + m) for m in ('splitting', 'encoding')]"
    modules = "sorted(__import__('sys').modules)"
    with Workers(1, functools.partial, eval) as pool:  # a function that evaluates its item
        pid, modules = pool.map(["__import__('os').getpid()", f"{load} and {modules}"])
        assert os.path.exists(f"/proc/{pid}") == sys.platform.startswith("linux")
    assert not os.path.exists(f"/proc/{pid}")  # at the end it is gone
    assert "sentencepiece" in modules and not {"torch", "fairseq"} & set(modules)


def test_an_error_of_the_work_is_passed_on():
    with Workers(2, SentenceSplitter, HOW) as pool, pytest.raises(PrepareError, match="a file, line 7: not UTF-8"):
        list(pool.map([("train", False, Batch("a file", 7, b"\xff\n"))] * 5))


def test_a_worker_that_is_killed_is_an_error_and_not_a_wait():
    with Workers(2, functools.partial, eval) as pool, pytest.raises(PrepareError, match=r"code -9.*fewer --workers"):
        list(pool.map(["1", "2", "__import__('os').kill(__import__('os').getpid(), 9)", "3"]))


def test_a_print_in_a_worker_does_not_disturb_the_results():
    with Workers(1, functools.partial, eval) as pool:
        assert list(pool.map(["print('noise') or 1", "2"])) == [1, 2]
