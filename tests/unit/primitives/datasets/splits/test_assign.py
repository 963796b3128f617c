"""Which split an example belongs to: shares hold, nothing is torn apart, nobody changes sides."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from decimal import Decimal
from itertools import accumulate, pairwise

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import DataError, SpecError
from airflow_mlops.primitives.datasets.splits.assign import Frozen, assign
from airflow_mlops.primitives.datasets.splits.rule import SPLITS, iso, parse_split, parse_time

DAY = 86_400_000_000
THIRDS = {"train": 0.7, "validation": 0.15, "test": 0.15}
HALVES = {"train": 0.5, "test": 0.5}


def divide(rule, times, frozen=None, keys=("id",), **columns):
    """[(split, fold)] of each example, in order of time, and the facts of the split."""
    columns.setdefault("id", list(range(len(times))))
    kind = pa.timestamp("us", "UTC")
    table = pa.table({"__row": range(len(times)), "at": pa.array(times, kind), **columns})
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.register("examples", table)
        types = {str(row[0]): str(row[1]) for row in connection.execute("DESCRIBE examples").fetchall()}
        if frozen is not None:
            held = table.take(pa.array(frozen, pa.int64()))
            connection.register("held", held.rename_columns(["__row", "__time", *held.column_names[2:]]))
            frozen = Frozen("held", "d" * 64, len(frozen))
        found = assign(
            connection,
            "examples",
            parse_split(rule),
            row="__row",
            timestamp="at",
            types=types,
            keys=keys,
            frozen=frozen,
        )
        rows = connection.execute(
            f"SELECT {found.named}, ({found.fold})::INTEGER FROM examples e {found.join} ORDER BY e.__row"
        ).fetchall()
    return rows, found.facts


def splits(rule, times, **columns):
    return [split for split, _ in divide(rule, times, **columns)[0]]


class TestTime:
    def test_shares_are_shares_of_rows(self):
        assert Counter(splits({"by": "time", **THIRDS}, range(1000))) == {
            "train": 700,
            "validation": 150,
            "test": 150,
        }

    def test_busy_and_quiet_times_still_give_shares_of_rows(self):
        times = [0] * 700 + [1, 2] + [3] * 148 + [100] * 75 + [200] * 75
        assert Counter(splits(THIRDS, times)) == {"train": 700, "validation": 150, "test": 150}

    def test_equal_times_stay_together(self):
        found = splits(HALVES, [1] * 10 + [2] * 10 + [3] * 10)
        assert found == ["train"] * 10 + ["test"] * 20  # of two bounds as near, the earlier

    def test_the_gap_is_left_out(self):
        found, facts = divide({**HALVES, "gap": "10s"}, [second * 1_000_000 for second in range(100)])
        assert [split for split, _ in found] == ["train"] * 50 + [None] * 10 + ["test"] * 40
        assert facts["bounds"] == {"train": [None, iso(49_000_000)], "test": [iso(59_000_000), None]}

    def test_a_split_without_share_is_none(self):
        assert Counter(splits({"train": 0.8, "validation": 0, "test": 0.2}, range(10))) == {
            "train": 8,
            "test": 2,
        }

    @settings(max_examples=60, deadline=None)
    @given(
        steps=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=60),
        shares=st.lists(st.integers(1, 9), min_size=2, max_size=3),
        gap=st.integers(0, 60),
    )
    def test_bounds_are_those_of_a_naive_search(self, steps, shares, gap):
        times = [time * 1_000_000 for time in accumulate(step for step, _ in steps)]
        counts = [count for _, count in steps]
        rows = [time for time, count in zip(times, counts, strict=True) for _ in range(count)]
        share = dict(zip(SPLITS, (part / sum(shares) for part in shares), strict=False))
        found = splits({**share, "gap": f"{gap}s"}, rows)
        assert found == naive(times, counts, share, gap * 1_000_000)


def naive(times, counts, shares, gap):
    """The split of each row, by looking at every time for the one nearest to each share."""
    ends = list(accumulate(counts))
    found, after, asked = [None] * ends[-1], None, 0.0
    for name in shares:
        asked += shares[name]
        last = name == list(shares)[-1]
        at = (
            len(times) - 1
            if last
            else min(range(len(ends)), key=lambda n: (abs(ends[n] - asked * ends[-1]), n))
        )
        begin = 0 if after is None else bisect_right(times, after)
        first = ends[begin - 1] if begin else 0
        for row in range(first, ends[at]):
            found[row] = name
        after = times[at] + gap
    return found


class TestRollingOrigin:
    def test_each_fold_is_judged_by_what_comes_next(self):
        found, facts = divide({"by": "time", "train": 0.8, "test": 0.2, "folds": 3}, range(100))
        folds = [fold for split, fold in found if split == "train"]
        assert folds == [0] * 20 + [1] * 20 + [2] * 20 + [3] * 20
        assert [fold for split, fold in found if split == "test"] == [None] * 20
        assert facts["origins"] == [iso(19), iso(39), iso(59)]

    def test_rows_in_a_gap_are_in_no_fold_and_still_in_train(self):
        times = [second * 1_000_000 for second in range(100)]
        found, _ = divide({"train": 0.8, "test": 0.2, "gap": "5s", "folds": 3}, times)
        assert found[:27] == [("train", 0)] * 20 + [("train", None)] * 5 + [("train", 1)] * 2
        assert found[80:85] == [(None, None)] * 5

    def test_too_few_times_say_so(self):
        with pytest.raises(DataError, match="3 folds need more different times"):
            divide({"train": 0.5, "test": 0.5, "folds": 3}, [1, 1, 1, 2, 2, 2])


def bucket(seed, text):
    return int(hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()[:8], 16) % 10_000


class TestHash:
    @pytest.mark.parametrize(
        ("values", "texts"),
        [
            ([3, -7, 10**12, None], ["3", "-7", "1000000000000", "\\N"]),
            (["a", "ü:\n", "", None], ["a", "ü:\n", "", "\\N"]),
            ([True, False, True, None], ["true", "false", "true", "\\N"]),
            (
                pa.array([0, 1_700_000_000_000_001, -1, None], pa.timestamp("us", "UTC")),
                ["0", "1700000000000001", "-1", "\\N"],
            ),
            (pa.array([0, 19_000, 1, None], pa.timestamp("s")), ["0", "19000000000", "1000000", "\\N"]),
            (pa.array([0, 19_800, 1, None], pa.date32()), ["1970-01-01", "2024-03-18", "1970-01-02", "\\N"]),
        ],
    )
    def test_any_language_can_repeat_it(self, values, texts):
        rule = {"by": "hash", "key": ["k"], **THIRDS, "seed": 7}
        found = splits(rule, range(4), k=values)
        assert found == [
            "train" if b < 7000 else "validation" if b < 8500 else "test"
            for b in (bucket(7, text) for text in texts)
        ]

    def test_several_columns_are_joined_by_a_control_character(self):
        found = splits(
            {"by": "hash", "key": ["a", "b"], **HALVES}, range(50), a=["x"] * 50, b=list(range(50))
        )
        assert found == ["train" if bucket(0, f"x\x1f{n}") < 5000 else "test" for n in range(50)]

    def test_the_keys_of_the_examples_are_the_key_unless_another_is_named(self):
        found, facts = divide({"by": "hash", **HALVES}, range(20), id=[n // 2 for n in range(20)])
        assert facts["key"] == ["id"]
        assert found[::2] == found[1::2]

    @settings(max_examples=40, deadline=None)
    @given(
        keys=st.lists(st.integers(0, 10_000), min_size=1, max_size=80, unique=True),
        keep=st.integers(1, 80),
        seed=st.integers(0, 99),
    )
    def test_nobody_changes_sides_when_data_grow(self, keys, keep, seed):
        rule = {"by": "hash", **THIRDS, "seed": seed, "folds": 4}
        few, _ = divide(rule, range(len(keys[:keep])), id=keys[:keep])
        many, _ = divide(rule, range(len(keys)), id=keys)
        assert many[: len(few)] == few

    def test_folds_divide_train_alone(self):
        found, _ = divide({"by": "hash", **HALVES, "folds": 5}, range(2000))
        assert {fold for split, fold in found if split == "test"} == {None}
        sizes = Counter(fold for split, fold in found if split == "train")
        assert set(sizes) == {1, 2, 3, 4, 5}
        assert min(sizes.values()) > 150
        text = next(n for n, (split, fold) in enumerate(found) if (split, fold) == ("train", 3))
        assert int(hashlib.sha256(f"0:fold:{text}".encode()).hexdigest()[:8], 16) % 5 + 1 == 3

    @pytest.mark.parametrize("repeated", [1, 3])
    @pytest.mark.parametrize(
        "rule",
        [
            {"by": "hash", **THIRDS, "seed": 3},
            {"by": "group", "key": ["a", "b"], **HALVES, "folds": 3},
            {"by": "column", "column": "said", "key": "a", "folds": 4},
        ],
        ids=["hash", "group", "column"],
    )
    def test_keys_that_hardly_repeat_are_decided_alike(self, monkeypatch, rule, repeated):
        rows = range(300)
        columns = {
            "id": [n // repeated for n in rows],
            "a": [None if n < repeated else f"a{n // repeated}" for n in rows],
            "b": [n // repeated % 7 for n in rows],
            "said": ["train" if n % 3 else None if n % 2 else "test" for n in rows],
        }
        found = []
        for direct in (True, False):
            monkeypatch.setattr(
                "airflow_mlops.primitives.datasets.splits.assign._mostly_different",
                lambda *_, direct=direct: direct,
            )
            found.append(divide(rule, rows, **columns))
        assert found[0] == found[1]
        assert len(set(found[0][0])) > 2

    def test_a_key_without_one_text_is_refused(self):
        with pytest.raises(SpecError, match=r"key of type DOUBLE has no text .* cast it"):
            divide({"by": "hash", "key": "k", **HALVES}, [1, 2], k=[0.1, 0.2])

    def test_a_column_that_is_not_there_is_named(self):
        with pytest.raises(SpecError, match="no column patient among the examples; they have"):
            divide({"by": "group", "key": "patient", **HALVES}, [1, 2])


class TestGroup:
    def test_a_group_is_never_torn_apart(self):
        groups = [n % 40 for n in range(400)]
        found, _ = divide({"by": "group", "key": "g", **THIRDS, "folds": 3}, range(400), g=groups)
        assert {len({found[n] for n in range(400) if groups[n] == g}) for g in range(40)} == {1}
        assert {split for split, _ in found} == set(SPLITS)


class TestStratified:
    def test_shares_hold_in_every_class(self):
        classes = ["rare" if n % 50 == 0 else "common" for n in range(1000)]
        found, _ = divide({"by": "hash", **THIRDS, "stratify": "y", "folds": 4}, range(1000), y=classes)
        rare = Counter(split for (split, _), y in zip(found, classes, strict=True) if y == "rare")
        common = Counter(split for (split, _), y in zip(found, classes, strict=True) if y == "common")
        assert rare == {"train": 14, "validation": 3, "test": 3}
        assert common == {"train": 686, "validation": 147, "test": 147}
        folds = Counter(fold for (_, fold), y in zip(found, classes, strict=True) if y == "rare" and fold)
        assert sorted(folds.values()) == [3, 3, 4, 4]

    def test_only_examples_at_a_cut_move_when_data_grow(self):
        rule = {"by": "hash", **THIRDS, "stratify": "y"}
        few = splits(rule, range(5000), y=[n % 2 for n in range(5000)])
        many = splits(rule, range(6000), y=[n % 2 for n in range(6000)])
        moved = sum(one != two for one, two in zip(few, many, strict=False))
        assert moved < 0.02 * len(few)

    def test_a_group_has_the_class_of_its_first_example(self):
        found, _ = divide(
            {"by": "group", "key": "g", **HALVES, "stratify": "y"},
            range(40),
            g=[n // 4 for n in range(40)],
            y=[n % 4 for n in range(40)],
        )
        assert Counter(split for split, _ in found) == {"train": 20, "test": 20}
        assert all(one == two for (one, two), n in zip(pairwise(found), range(39), strict=True) if n % 4 != 3)


class TestColumn:
    def test_the_column_decides_and_null_leaves_out(self):
        found = splits({"by": "column", "column": "p"}, range(4), p=["test", "train", None, "validation"])
        assert found == ["test", "train", None, "validation"]

    def test_values_may_stand_for_splits(self):
        rule = {"by": "column", "column": "p", "values": {"train": [1, 2], "test": 3}}
        assert splits(rule, range(3), p=[2, 3, 1]) == ["train", "test", "train"]
        # A writer that knows no null makes floats of whole numbers.
        assert splits(rule, range(4), p=[2.0, 3.0, 1.0, float("nan")]) == ["train", "test", "train", None]
        texts = {"by": "column", "column": "p", "values": {"train": ["1.0"], "test": ["0.5"]}}
        assert splits(texts, range(2), p=[0.5, 1.0]) == ["test", "train"]
        with pytest.raises(DataError, match=r"'2.5' \(1 rows\)"):
            divide(rule, range(2), p=[2.5, 1.0])

    @pytest.mark.parametrize(
        "column", [[True, False], [1, 0], [1.0, 0.0], [Decimal("1.00"), Decimal("0.00")]]
    )
    @pytest.mark.parametrize("train", [1, 1.0, "1"])
    def test_values_are_known_in_another_type(self, column, train):
        rule = {"by": "column", "column": "p", "values": {"train": train, "test": [0]}}
        assert splits(rule, range(2), p=column) == ["train", "test"]

    def test_texts_are_taken_as_they_are(self):
        rule = {"by": "column", "column": "p", "values": {"train": 1, "test": 0}}
        with pytest.raises(DataError, match=r"'01' \(1 rows\), 'nan' \(1 rows\)"):
            divide(rule, range(4), p=["1", "0", "01", "nan"])

    def test_an_unknown_value_is_named(self):
        with pytest.raises(DataError, match=r"'dev' \(2 rows\); expected train, validation, test"):
            divide({"by": "column", "column": "p"}, range(3), p=["train", "dev", "dev"])

    def test_folds_of_a_column_go_by_the_key(self):
        found, facts = divide({"by": "column", "column": "p", "folds": 2}, range(20), p=["train"] * 20)
        assert {fold for _, fold in found} == {1, 2}
        assert facts["key"] == ["id"]


class TestFrozen:
    def test_by_hash_no_other_example_is_ever_tested_and_no_entity_learnt_from(self):
        ids = [n % 30 for n in range(300)]
        rule = {"by": "hash", **THIRDS, "freeze": "v1"}
        frozen = [
            n for n in range(90) if splits({"by": "hash", **THIRDS}, range(90), id=ids[:90])[n] == "test"
        ]
        found, facts = divide(rule, range(300), frozen=frozen, id=ids)
        assert [n for n, (split, _) in enumerate(found) if split == "test"] == frozen
        held = {ids[n] for n in frozen}
        assert {found[n][0] for n in range(300) if ids[n] in held and n not in frozen} == {None}
        assert {found[n][0] for n in range(300) if ids[n] not in held} == {"train", "validation"}
        assert facts["frozen"] == {"digest": "d" * 64, "rows": len(frozen), "missing": 0}

    def test_new_examples_whose_hash_says_test_are_learnt_from(self):
        free = splits({"by": "hash", **THIRDS}, range(200))
        held = [n for n, split in enumerate(free) if split == "test"][:3]
        found, _ = divide({"by": "hash", **THIRDS, "freeze": "v1"}, range(200), frozen=held)
        for n, split in enumerate(free):
            assert found[n][0] == ("test" if n in held else {"test": "train"}.get(split, split))

    def test_by_time_the_rest_is_divided_around_it(self):
        times = [day * DAY for day in range(100)]
        rule = {**THIRDS, "gap": "2d", "freeze": "v1"}
        found, facts = divide(rule, times, frozen=[40, 41, 43])
        names = [split for split, _ in found]
        assert [n for n, name in enumerate(names) if name == "test"] == [40, 41, 43]
        assert names[38:40] + names[42:43] + names[44:46] == [None] * 5
        counted = Counter(names)
        assert counted["train"] == round((100 - 8) * 0.7 / 0.85)
        assert names[46] == "train"
        assert names[-1] == "validation"
        assert facts["shares"] == THIRDS

    def test_by_column_what_says_test_and_is_not_frozen_is_left_out(self):
        found, _ = divide(
            {"by": "column", "column": "p", "freeze": "v1"},
            range(4),
            frozen=[0],
            p=["test", "test", "train", "train"],
        )
        assert [split for split, _ in found] == ["test", None, "train", "train"]

    def test_a_test_that_is_gone_says_so(self):
        with pytest.raises(DataError, match=r"none of the 0 frozen test example\(s\)"):
            divide({"by": "hash", **THIRDS, "freeze": "v1"}, range(4), frozen=[])

    def test_what_is_missing_is_counted(self):
        start = parse_time("2024-01-01")
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone='UTC'")
            connection.execute(
                f"CREATE TABLE e AS SELECT i AS __row, i AS id, make_timestamptz({start} + i) AS at FROM range(9) t(i)"
            )
            connection.execute(
                'CREATE TABLE held AS SELECT id + 5 AS id, "at" + to_microseconds(5) AS __time FROM e'
            )
            rule = parse_split({"by": "hash", **THIRDS, "freeze": "v1"})
            found = assign(
                connection,
                "e",
                rule,
                row="__row",
                timestamp="at",
                types={"id": "BIGINT"},
                keys=("id",),
                frozen=Frozen("held", "d", 9),
            )
        assert found.facts["frozen"] == {"digest": "d", "rows": 9, "missing": 5}
