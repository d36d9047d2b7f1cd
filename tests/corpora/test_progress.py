"""Progress: how much is done, how fast, and the time left."""

import pytest

from fairseq_lambda.corpora import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by 5 seconds each time it is read."""
    now = iter(range(0, 10**6, 5))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_rate_and_time_that_is_left(clock, capsys):
    items = [2_000_000] * 4
    assert list(progress.narrate(items, "reading", lambda n: n, total=8_000_000)) == items
    assert lines(capsys) == [
        "reading",
        "reading: 2 MB, 25%, 0.4 MB/s, 15 s left",
        "reading: 4 MB, 50%, 0.4 MB/s, 10 s left",
        "reading: 6 MB, 75%, 0.4 MB/s, 5 s left",
        "reading: 8 MB, 100%, 0.4 MB/s, 0 s left",
    ]


def test_a_packed_text_is_measured_by_its_place_in_the_file(clock, capsys):
    place = iter([0, 10, 20])
    list(progress.narrate([5_000_000] * 2, "reading", lambda n: n, position=lambda: next(place), total=100))
    assert lines(capsys)[1:] == ["reading: 5 MB, 10%, 1.0 MB/s, 45 s left", "reading: 10 MB, 20%, 1.0 MB/s, 40 s left"]


def test_what_was_done_before_is_no_rate_and_without_an_end_nothing_is_left(clock, capsys):
    list(progress.narrate([10_000_000], "downloading", lambda n: n, done=30_000_000, total=50_000_000))
    list(progress.narrate([10_000_000], "reading", lambda n: n))
    assert lines(capsys) == [
        "downloading",
        "downloading: 40 MB, 80%, 2.0 MB/s, 5 s left",
        "reading",
        "reading: 10 MB, 2.0 MB/s",
    ]


def test_work_that_tells_nothing_shows_that_it_lives(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with progress.heartbeat("learning"):
        progress.time.sleep(0.1)
    assert lines(capsys)[:2] == ["learning", "learning: 0 s"]


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "1 min 00 s"), (125, "2 min 05 s"), (7800, "2 h 10 min")])
def test_duration(seconds, text):
    assert progress.duration(seconds) == text
