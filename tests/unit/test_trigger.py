"""When an epoch begins."""

from __future__ import annotations

from streamproc.engine.trigger import Decision, Trigger, View, decide

ASAP, TEN_S, NOW = Trigger("asap"), Trigger("interval", 10_000_000), Trigger("available_now")
S = 1_000_000


def test_asap_begins_when_there_is_work_and_waits_for_news_otherwise():
    assert decide(ASAP, View(0, None, work=True)) == Decision("begin")
    assert decide(ASAP, View(0, None, work=False)) == Decision("wait")


def test_an_interval_begins_at_once_the_first_time():
    assert decide(TEN_S, View(5 * S, None, work=True)) == Decision("begin")


def test_an_interval_waits_for_its_end_and_not_longer():
    assert decide(TEN_S, View(14 * S, 5 * S, work=True)) == Decision("wait", 1 * S)
    assert decide(TEN_S, View(15 * S, 5 * S, work=True)) == Decision("begin")


def test_an_epoch_that_took_longer_is_followed_at_once():
    assert decide(TEN_S, View(40 * S, 5 * S, work=True)) == Decision("begin")


def test_no_epoch_without_work():
    assert decide(TEN_S, View(40 * S, 5 * S, work=False)) == Decision("wait")


def test_available_now_finishes_when_all_is_read_and_done():
    assert decide(NOW, View(0, None, work=True, exhausted=True)) == Decision("begin")
    assert decide(NOW, View(0, None, work=False, exhausted=True)) == Decision("finish")
    assert decide(NOW, View(0, None, work=False, exhausted=False)) == Decision("wait")


def test_a_stop_lets_nothing_new_begin():
    assert decide(ASAP, View(0, None, work=True, stopping=True)) == Decision("finish")
