"""Which files a path means, and what is said when there is none."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sources.listing import find_files


@pytest.mark.parametrize("wanted", ["weathr/*.parquet", "weathr", "weathr/2024/a.parquet"])
def test_the_hint_for_a_wrong_folder_names_the_right_one(tmp_path, wanted):
    for name in [*(f"a{number:02d}" for number in range(30)), "weather"]:
        (tmp_path / name).mkdir()
    with pytest.raises(SourceError, match=r" has a00, .*, weather, … \(21 more\)$"):
        find_files(wanted, tmp_path)


@pytest.mark.parametrize(
    "pattern", ["x [1]/*.txt", "x [1]/y[2]/../*.txt", "x [[]1]/a[0-9].txt", "x [1]/a[12].txt"]
)
def test_brackets_of_a_folder_that_is_there_are_its_name(tmp_path, pattern):
    (tmp_path / "x [1]" / "y[2]").mkdir(parents=True)
    file = tmp_path / "x [1]" / "a1.txt"
    file.write_text("")
    for found in (find_files(pattern, tmp_path), find_files(f"{tmp_path}/{pattern}")):
        assert [name.rpartition("/")[2] for name in found] == ["a1.txt"]
