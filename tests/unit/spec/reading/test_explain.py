"""Every kind of mistake: where it is reported, and what is suggested."""

from __future__ import annotations

import pytest

from airflow_mlops.spec import ApplicationSpec
from tests.unit.spec.samples import FULL


def change(old: str, new: str) -> str:
    """The full example with one line changed; the line numbers stay."""
    assert FULL.count(old) == 1
    return FULL.replace(old, new)


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("old", "new", "key", "nearest"),
    [
        ("owner: ml-team", "ower: ml-team", "ower", "owner"),
        ("paradigm: cl", "Paradigm: cl", "Paradigm", "paradigm"),
        ("  image: fl", "  imgae: fl", "code.imgae", "image"),
        ("{directory: ", "{folder: ", "code.process.folder", "provisioning.examples.folder"),
        ("feature_store: ", "feature-store: ", "provisioning.feature-store", "feature_store"),
        ("timestamp: ", "time_stamp: ", "provisioning.examples.time_stamp", "timestamp"),
        ("gap: 0s", "gaps: 0s", "provisioning.split.gaps", "gap"),
        ("memory: 4g", "memry: 4g", "training.resources.memry", "memory"),
        ("deferrable: ", "seeds: ", "training.seeds", "seed"),
        ("at_most: ", "atmost: ", "evaluation.require[2].atmost", "at_most"),
        ("  - batch: ", "  - bach: ", "delivery[0].bach", "batch"),
        ("false_alarm_rate: 0.0001", "false_alarms: 0.0001", "monitoring.drift.false_alarms", "false_alarm_rate"),
        ("loss: brier", "losses: brier", "monitoring.performance.losses", "loss"),
        ("{min_rows: 1000}\n  split", "{minrows: 1000}\n  split", "provisioning.assumptions[7].minrows", "min_rows"),
        ("{column: origin, not_null: true}", "{colum: origin, not_null: true}", "provisioning.assumptions[0].colum", "column"),
        ("{assets: [flights_scheduled]}", "{asset: [flights_scheduled]}", "delivery[0].batch.schedule.asset", "assets"),
        ("on: [drift,", "ons: [drift,", "retraining.ons", "on"),
        ("owner: ml-team", "window: 30d", "window", "provisioning.window"),
        ("owner: ml-team", "zzz: 1", "zzz", ""),
    ],
)  # fmt: skip
def test_an_unknown_key_has_its_line_and_the_nearest_known_key(problems, old, new, key, nearest):
    text = change(old, new)
    unknown = [one for one in problems(text) if one.what == "is not a known key"]
    assert [(one.key, one.nearest) for one in unknown] == [(key, nearest)]
    name = key.rsplit(".", 1)[-1]
    line = line_of(text, f"{name}: ")
    assert unknown[0].place.line == line
    assert text.splitlines()[line - 1][unknown[0].place.column - 1 :].startswith(f"{name}:")
    assert unknown[0].got == name
    assert unknown[0].cure
    if nearest and "." not in nearest:
        assert nearest in unknown[0].expected.removeprefix("one of ").split(", ")


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        # of the wrong kind
        ("owner: ml-team", "owner: 5", "owner", "expected: text\n    got:      the number 5"),
        ("owner: ml-team", "owner:", "owner", "got:      nothing"),
        ("tags: [demo]", "tags: demo", "tags", "a list: [a, b]"),
        ("tracking: {connection: mlflow_default, experiment: flights}", "tracking: mlflow_default", "tracking", "a mapping"),
        ("tracking: {connection: mlflow_default, experiment: flights}", "tracking:", "tracking", "write tracking: {}"),
        ("seed: 7", 'seed: "7"', "training.seed", "without quotes"),
        ("seed: 7", "seed: 7.5", "training.seed", "a whole number"),
        ("seed: 7", "seed: true", "training.seed", "a whole number"),
        ("deferrable: true", "deferrable: yes", "training.deferrable", "write true or false"),
        ("deferrable: true", "deferrable: 1", "training.deferrable", "true or false"),
        ("cpus: 2", "cpus: two", "training.resources.cpus", "a number"),
        ("cases: true", "cases: 'true'", "evaluation.cases", "true or false"),
        ("{learning_rate: 0.1, layers: [64, 32], early_stopping: true}", "[a]", "training.parameters", "a mapping"),
        # out of range, malformed
        ("application: flight_delay", "application: Flight-Delay", "application", "a lower-case letter"),
        ("application: flight_delay", f"application: {'a' * 64}", "application", "up to 62"),
        ("seed: 7", "seed: -1", "training.seed", "at least 0"),
        ("cpus: 2", "cpus: 0", "training.resources.cpus", "more than 0"),
        ("train: 0.7,", "train: 1.7,", "provisioning.split.train", "at most 1"),
        ("window: 365d", "window: 365", "provisioning.window", "365d for days"),
        ("window: 365d", "window: 0d", "provisioning.window", "longer than zero"),
        ("timeout: 2h", "timeout: 2 hours", "training.timeout", "s, m, h, d, w"),
        ("memory: 4g", "memory: 4 GB", "training.resources.memory", "k, m, g, t"),
        ("shm: 64m", "shm: 0m", "training.resources.shm", "more than zero"),
        ("keys: [flight_id]", "keys: []", "provisioning.examples.keys", "at least 1 item"),
        ("keys: [flight_id]", "keys: [a, a]", "provisioning.examples.keys", "a more than once"),
        ("targets: [late]", "targets: [late, later]", "provisioning.examples.targets", "at most 1 item"),
        ("mlflow_default", "ml flow", "tracking.connection", "a connection id"),
        ("image: flight-delay:1.0.0", "image: flight delay", "code.image", "image reference"),
        # words and schedules
        ("paradigm: classification", "paradigm: clasification", "paradigm", "nearest:  classification"),
        ("alarm: warn", "alarm: email", "monitoring.drift.alarm", "warn or retrain"),
        ("on: [drift, performance]", "on: [drift, performence]", "retraining.on[1]", "nearest:  performance"),
        ("by: time", "by: random", "provisioning.split.by", "time, hash, group or column"),
        ('"0 3 * * 1"', '"0 3 * *"', "retraining.schedule", "Exactly 5"),
        ('"0 3 * * 1"', '"0 0 31 2 *"', "retraining.schedule", "never comes to pass"),
        ("{assets: [flights_scheduled]}", '"0 0 31 4,6 *"', "delivery[0].batch.schedule", "never comes to pass"),
        ('"0 3 * * 1"', "5", "retraining.schedule", "is not a cron expression"),
        ('"0 3 * * 1"', "{assets: [flights_landed]}", "retraining.schedule", "is not a cron expression"),
        ("{assets: [flights_scheduled]}", "5", "delivery[0].batch.schedule", "is not a schedule"),
        ("{assets: [flights_scheduled]}", "{assets: []}", "delivery[0].batch.schedule.assets", "at least 1 item"),
        # keys that must go together
        ("    sql: ", "    parquet: x\n    sql: ", "provisioning.examples.parquet", "two sources"),
        ("    sql: SELECT", "    # sql: SELECT", "provisioning.examples", "no source"),
        ("targets: [late]", "targets: [flight_id]", "provisioning.examples.targets", "which is also keys"),
        ("known_at: known_at", "known_at: late", "provisioning.examples.targets_known_at", "which is also targets"),
        ("keys: [flight_id]", "keys: [prediction]", "provisioning.examples.keys", "a reserved name"),
        ("keys: [flight_id]", "keys: [Request_ID]", "provisioning.examples.keys", "a reserved name"),
        ("known_at: known_at", "known_at: event_timestamp", "provisioning.examples.targets_known_at", "the time of the question"),
        ("test: 0.15", "test: 0.25", "provisioning.split.test", "make 1.1"),
        ("gap: 0s", "folds: 1", "provisioning.split.folds", "at least 2"),
        ("gap: 0s", "key: [a]", "provisioning.split.key", "remove it, or write by: group"),
        ("{by: time, train: 0.7, validation: 0.15, test: 0.15, gap: 0s}", "{by: hash, stratify: late, gap: 1d}", "provisioning.split.gap", "no meaning for by: hash"),
        ("by: time,", "by: group,", "provisioning.split", "by: group lacks key"),
        ("{by: time, train: 0.7, validation: 0.15, test: 0.15, gap: 0s}", "{by: column, column: part, train: 0.5}", "provisioning.split.train", "no meaning for by: column"),
        ("  image: ", "  # image: ", "training.run_on", "code.image is missing"),
        ("run_on: docker", "run_on: dokcer", "training.run_on", "docker"),
        ("run_on: docker", "run_on: kubernetes", "training.kubernetes.staging", "must be on S3"),
        ("loss: brier", "loss: absolute_error", "monitoring.performance.loss", "does not fit paradigm: classification"),
        ("paradigm: classification", "paradigm: regression", "monitoring.performance.loss", "write loss: absolute_error"),
        ("paradigm: classification", "paradigm: clustering", "monitoring.performance", "knows no loss of one prediction"),
        ("    targets: [late]\n    targets_known_at: known_at\n", "", "provisioning.examples.targets", "paradigm: classification learns from them"),
        ("    targets: [late]\n", "    targets: [late]\n    keep_unlabelled: true\n", "provisioning.examples.targets_known_at", "no meaning with keep_unlabelled"),
        ("columns: null", "columns: [temp]", "monitoring.drift.min_columns", "no alarm could ever be raised"),
        # lists of rules
        ("{column: origin, not_null: true}", "{not_null: true}", "provisioning.assumptions[0]", "which column not_null"),
        ("{column: origin, not_null: true}", "{column: origin}", "provisioning.assumptions[0]", "has no rule"),
        ("{column: origin, not_null: true}", "{column: x, unique: [a]}", "provisioning.assumptions[0]", "mixes column with unique"),
        ("{column: origin, not_null: true}", "{unique: [a], min_rows: 1}", "provisioning.assumptions[0]", "has two rules"),
        ("{column: origin, not_null: true}", "not_null", "provisioning.assumptions[0]", "a mapping"),
        ("not_null: true}\n    - {column: origin, max", "not_null: false}\n    - {column: origin, max", "provisioning.assumptions[0].not_null", "expected: true"),
        ("max_null_share: 0.1", "max_null_share: 10", "provisioning.assumptions[1].max_null_share", "at most 1"),
        ("severity: warn", "severity: error", "provisioning.assumptions[1].severity", "fail or warn"),
        ("[0, 5000]", "[5000, 0]", "provisioning.assumptions[2].between", "write [0, 5000]"),
        ("[0, 5000]", "[0]", "provisioning.assumptions[2].between", "two numbers"),
        ("[0, 5000]", "[0, b]", "provisioning.assumptions[2].between", "two numbers"),
        ("[0, 5000]", "[null, null]", "provisioning.assumptions[2].between", "two numbers"),
        ("[EWR, JFK, LGA]", "[[EWR]]", "provisioning.assumptions[4].one_of", "not a plain value"),
        ("{metric: auc, at_least: 0.6}", "{metric: auc}", "evaluation.require[0]", "has no condition"),
        ("{metric: auc, at_least: 0.6}", "{at_least: 0.6}", "evaluation.require[0].metric", "is missing"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, at_least: 0, against: champion}", "evaluation.require[0]", "mixes two"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, no_worse_by: 0}", "evaluation.require[0].no_worse_by", "against: champion"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, latency: p50, at_most: 1}", "evaluation.require[0]", "is about metric and latency"),
        ("{metric: auc, at_least: 0.6}", "{fairness: recall, at_most: 0.1}", "evaluation.require[0]", "does not say whose groups"),
        ("{metric: auc, at_least: 0.6}", "{latency: p95, at_most: 50m}", "evaluation.require[0].at_most", "write at_most: 50ms"),
        ("{metric: auc, at_least: 0.6}", "{size: model, at_most: 50ms}", "evaluation.require[0].at_most", "write at_most: 200m"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, at_most: 50ms}", "evaluation.require[0].at_most", "a metric has none"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, at_most: [1]}", "evaluation.require[0].at_most", "is no bound"),
        ("{metric: auc, at_least: 0.6}", "{size: model}", "evaluation.require[0]", "add at_most: 200m"),
        ("{metric: auc, at_least: 0.6}", "{size: model, at_most: 1k, split: test}", "evaluation.require[0].split", "means nothing beside size"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, against: champion, better_by: 0.1, no_worse_by: 0.1}", "evaluation.require[0]", "mixes better_by with no_worse_by"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, at_least: 1, slice: a=1, per_slice: a}", "evaluation.require[0].slice", "one slice and each slice"),
        ("{metric: auc, at_least: 0.6}", "{metric: a, at_least: 1, confidence: 0.2}", "evaluation.require[0].confidence", "at least 0.5"),
        ("cases: true", "mode: maybe", "evaluation.mode", "enforce or dry_run"),
        ("against: champion", "against: chamption", "evaluation.require[1].against", "nearest:  champion"),
        ("delivery:\n", "delivery:\n  - batch: {}\n", "delivery[1]", "has batch twice"),
        # paths
        ("store: /var", "store: gs://var", "store", "uses gs://"),
        ("store: /var", "store: s3://V", "store", "is not the address of a bucket"),
        ("store: /var", "store: file://host/var", "store", "three slashes"),
        ("store: /var", "store: ~/var", "store", "begins with ~"),
        ("folder: data", 'folder: "a\\0b"', "provisioning.examples.folder", "control character"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_problem_at_its_line(problems, old, new, key, words):
    text = change(old, new)
    [problem] = problems(text)
    assert problem.key == key
    assert words in str(problem)
    assert problem.cure
    last = key.split("[")[0].rsplit(".", 1)[-1]
    if "[" not in key and "missing" not in problem.what and f"{last}:" in new:
        assert problem.place.line == line_of(text, new.strip().splitlines()[0])


@pytest.mark.parametrize("login", ["robot:hunter2@", "hunter2@"])
def test_a_login_in_the_address_of_a_repository_is_refused_and_not_shown(problems, login):
    watch = f"\n  watch: {{image: false, git: 'https://{login}git.example.com/churn.git'}}"
    [problem] = problems(change("image: flight-delay:1.0.0", f"image: flight-delay:1.0.0{watch}"))
    assert (problem.key, problem.what) == (
        "code.watch.git",
        "holds a login, which events and logs would show",
    )
    assert "git_connection" in problem.cure
    assert "hunter2" not in str(problem)


def test_exact_places(problems):
    text = FULL.replace("flights_landed]}\ntraining", "{}]}\ntraining").replace("seed: 7", "seed: x")
    places = {one.key: (one.place.line, one.place.column) for one in problems(text)}
    assert places == {"provisioning.schedule.assets[0]": (32, 23), "training.seed": (38, 3)}


def test_a_missing_key_is_reported_where_it_should_be(problems):
    text = FULL.replace("    timestamp: event_timestamp\n", "")
    [problem] = problems(text)
    assert (problem.key, problem.place.line) == (
        "provisioning.examples.timestamp",
        line_of(text, "examples:"),
    )
    assert problem.expected.startswith("Column with the time")


def test_a_missing_store_says_where_it_usually_stands(problems):
    [problem] = problems(FULL.replace("store: /var/lib/airflow-mlops\n", ""))
    assert (problem.key, problem.what) == ("store", "is missing")
    assert problem.cure == "add store: ... here, or to a defaults.yaml beside the file"


def test_features_may_be_null_but_not_forgotten(problems):
    [problem] = problems(FULL.replace("  features: flight_delay_v1\n", ""))
    assert (problem.key, problem.what) == ("provisioning.features", "is missing")


def test_no_code_at_all(problems):
    text = FULL.replace("  image: flight-delay:1.0.0\n  process: {dir", "  {}\nx: {dir").replace(
        "x: {dir", "# x: {dir"
    )
    [problem] = problems(text)
    assert (problem.key, problem.what) == ("code", "names no model code")


def test_a_merge_key_is_explained(problems):
    [problem] = problems(FULL + "<<: {owner: me}\n")
    assert (problem.key, problem.place.line) == ("<<", FULL.count("\n") + 1)
    assert "defaults.yaml" in problem.cure


def test_words_that_pydantic_uses_itself_are_no_trouble(problems):
    text = FULL.replace("seed: 7", "<cron>: 7").replace(
        "schedule: {assets: [flights_scheduled]}", "'<assets>': 1"
    )
    assert {one.key for one in problems(text)} == {"training.<cron>", "delivery[0].batch.<assets>"}


def test_all_problems_of_a_file_come_at_once_in_its_order(problems):
    text = (
        FULL.replace("owner: ml-team", "ower: ml-team")
        .replace("window: 365d", "window: 365")
        .replace("test: 0.15", "test: 0.5")
        .replace("seed: 7", "seed: 7\n  seed: 8")
        .replace("loss: brier", "loss: absolute_error")
    )
    found = problems(text)
    assert [one.key for one in found] == [
        "ower",
        "provisioning.window",
        "provisioning.split.test",
        "training.seed",
        "monitoring.performance.loss",
    ]
    assert [one.place.line for one in found] == sorted(one.place.line for one in found)


def test_every_key_has_a_description():
    def sections(schema):
        yield "application", schema
        yield from ((name, one) for name, one in schema["$defs"].items() if "properties" in one)

    schema = ApplicationSpec.model_json_schema()
    for name, section in sections(schema):
        assert section.get("description"), name
        for key, field in section["properties"].items():
            target = schema["$defs"].get(field.get("$ref", "").rsplit("/", 1)[-1], {})
            assert field.get("description") or target.get("description"), f"{name}.{key}"


def test_a_misspelled_key_that_is_needed_is_one_problem(problems):
    (problem,) = problems(FULL.replace("  examples:", "  exmples:"))
    assert (problem.key, problem.nearest, problem.cure) == (
        "provisioning.exmples",
        "examples",
        "write examples",
    )


@pytest.mark.parametrize(
    ("good", "bad", "cure"),
    [
        ("application: flight_delay", "application: Flight Delay", "write application: flight_delay"),
        ("seed: 7", "seed: -1", "write seed: 0, or more"),
        ("tags: [demo]", "tags: demo", "put brackets around it, or a dash in front of each item"),
        ("owner: ml-team", 'owner: ""', "write a word, or remove the key"),
    ],
)
def test_a_cure_is_what_to_type(problems, good, bad, cure):
    assert good in FULL
    (problem,) = problems(FULL.replace(good, bad))
    assert problem.cure == cure
    assert problem.cure.removeprefix("write ") != problem.expected
