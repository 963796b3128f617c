"""Cutting output into lines, and knowing which were handed over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.runners.lines import (
    LINE_LIMIT,
    MISSING,
    Delivered,
    FileReader,
    FrameReader,
    LineCutter,
    unix_time,
)
from airflow_mlops.runners.protocol import LogLine


def stamp(number):
    return f"2026-01-01T00:00:{number // 10**9:02d}.{number % 10**9:09d}Z"


def frames(*lines):
    return [(1, f"{stamp(number)} {text}\n".encode()) for number, text in lines]


def read(delivered, sent, upto=None):
    reader = FrameReader(delivered)
    got = [line for stream, frame in sent[:upto] for line in reader.feed(stream, frame)]
    for line in got:
        delivered.add(line)
    return [line.text for line in got]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"1%\r2%\r\r3%\n", ["1%", "2%", "3%"]),
        (b"\rdone\r\n", ["done"]),
        (b"caf\xc3\xa9 \xff\n", ["café \ufffd"]),
        (b"unfinished", ["unfinished"]),
    ],
)
def test_lines_end_at_newlines_and_returns(data, lines):
    for size in (1, 2, len(data)):
        cutter = LineCutter()
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert [line for piece in pieces for line in cutter.feed(piece)] + cutter.flush() == lines


def test_a_giant_line_keeps_its_beginning_and_says_what_is_missing():
    cutter = LineCutter()

    assert [line for _ in range(100) for line in cutter.feed(b"x" * 1000)] == []
    (line,) = cutter.feed(b"\n")

    assert line == "x" * LINE_LIMIT + f" … [{100_000 - LINE_LIMIT} more bytes]"


def test_a_line_in_several_frames_is_one_and_streams_do_not_mix():
    reader = FrameReader(Delivered())
    one, two = stamp(1).encode(), stamp(2).encode()

    assert reader.feed(1, one + b" begin ") == []
    assert reader.feed(2, two + b" error\n") == [LogLine(stamp(2), "error")]
    assert reader.feed(1, one + b"  and end\n") == [LogLine(stamp(1), "begin  and end")]


def test_lines_of_one_stamp_are_told_apart_by_number():
    lines = FrameReader(Delivered()).feed(1, f"{stamp(5)} a\rb\rc\n".encode())

    assert [line.at for line in lines] == [stamp(5), f"{stamp(5)}#1", f"{stamp(5)}#2"]
    assert read(Delivered(lines[1].at), [(1, f"{stamp(5)} a\rb\rc\n".encode())]) == ["c"]


def test_a_stamp_that_goes_back_is_neither_lost_nor_doubled():
    sent = frames((10, "a"), (30, "c"), (20, "b"), (40, "d"))
    delivered = Delivered()

    assert read(delivered, sent, upto=2) == ["a", "c"]
    assert delivered.begin <= unix_time(stamp(20))
    assert read(delivered, sent) == ["b", "d"]


def test_output_that_was_thrown_away_leaves_a_line_where_it_was():
    sent = frames((10, "a"), (20, "b"), (30, "c"), (40, "d"))
    first = FrameReader(Delivered(), whole=True)
    a, b = [line for stream, frame in sent[:2] for line in first.feed(stream, frame)]

    def again(since, begin):
        reader = FrameReader(Delivered(since), whole=True)
        return [line for stream, frame in sent[begin:] for line in reader.feed(stream, frame)]

    assert [line.text for line in again(b.at, 1)] == ["c", "d"]
    gap, c, d = again(a.at, 2)
    assert (gap.text, c.text, d.text) == (MISSING, "c", "d")
    assert [line.text for line in again(gap.at, 2)] == ["c", "d"], "its cursor is in front of the next line"


@given(
    stamps=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_any_broken_connections_hand_over_every_line_once(stamps, cuts):
    sent = frames(*((moment, f"line {number}") for number, moment in enumerate(sorted(stamps))))
    delivered, got = Delivered(), []

    for cut in [*cuts, None]:
        reachable = [frame for frame in sent if unix_time(frame[1].split()[0].decode()) >= delivered.begin]
        got += read(delivered, reachable if delivered.begin else sent, upto=cut)

    assert got == [f"line {number}" for number in range(len(stamps))]


@given(
    stamps=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    heard=st.integers(1, 40),
    asked=st.integers(1, 40),
)
def test_the_newest_lines_tell_what_is_left(stamps, heard, asked):
    sent = frames(*((moment, f"line {number}") for number, moment in enumerate(sorted(stamps))))
    delivered = Delivered()
    got = read(delivered, sent, upto=heard)

    reached = delivered.reached_by(sent[-asked:], asked)

    # Where the newest do not say it, all are asked for.
    assert got + read(delivered, reached or sent) == [f"line {number}" for number in range(len(stamps))]
    if reached and asked < len(sent):
        assert reached[0] in sent[:heard]


def test_the_newest_lines_reach_back_where_nothing_is_left():
    sent = frames(*((number, f"line {number}") for number in range(1000)))
    delivered = Delivered()
    read(delivered, sent)

    assert delivered.reached_by(sent[-500:], 500) == sent[-499:]
    assert Delivered(stamp(400)).reached_by(sent[-500:], 500) == []


def test_only_the_newest_lines_are_remembered():
    delivered = Delivered()
    for number in range(10_000):
        delivered.add(LogLine(stamp(number), ""))

    assert delivered.begin > unix_time(stamp(7_000))
    assert not delivered.is_new(stamp(3), 0)
    assert not delivered.is_new(stamp(9_999), 0)
    assert delivered.is_new(stamp(10_000), 0)


def test_unix_time_keeps_the_nanoseconds():
    assert unix_time("2026-11-23T05:43:45.809038000Z") == "1795412625.809038000"
    assert unix_time("1970-01-01T00:00:01Z") == "1.000000000"


def test_a_file_is_read_on_from_the_cursor(tmp_path):
    path = tmp_path / "log"
    assert list(FileReader(path).read()) == []
    path.write_bytes(b"one\ntwo\nthr")
    reader = FileReader(path)

    lines = list(reader.read())
    with path.open("ab") as file:
        file.write(b"ee\n")
    more = list(reader.read())

    assert [line.text for line in lines + more] == ["one", "two", "three"]
    assert [line.text for line in FileReader(path, lines[0].at).read()] == ["two", "three"]
