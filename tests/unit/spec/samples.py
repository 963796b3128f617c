"""YAML that the tests start from."""

from __future__ import annotations

MINIMAL = """\
application: tiny
code: {image: "tiny:1"}
provisioning:
  features: tiny_v1
  examples:
    parquet: data/*.parquet
    keys: [id]
    timestamp: at
    targets: [y]
"""

FULL = """\
application: flight_delay
description: Will a flight arrive more than 15 minutes late?
owner: ml-team
tags: [demo]
paradigm: classification
store: /var/lib/airflow-mlops
tracking: {connection: mlflow_default, experiment: flights}
code:
  image: flight-delay:1.0.0
  process: {directory: ../../examples/flight_delay, command: [python, model_code.py]}
provisioning:
  feature_store: feast_default
  features: flight_delay_v1
  examples:
    folder: data
    sql: SELECT * FROM read_parquet('examples/*.parquet')
    keys: [flight_id]
    timestamp: event_timestamp
    targets: [late]
    targets_known_at: known_at
  window: 365d
  assumptions:
    - {column: origin, not_null: true}
    - {column: origin, max_null_share: 0.1, severity: warn}
    - {column: distance, between: [0, 5000], not_null: true}
    - {column: distance, between: [0, null]}
    - {column: origin, one_of: [EWR, JFK, LGA]}
    - {column: distance, type: double}
    - {unique: [flight_id]}
    - {min_rows: 1000}
  split: {by: time, train: 0.7, validation: 0.15, test: 0.15, gap: 0s}
  schedule: {assets: [flights_landed]}
training:
  run_on: docker
  docker: {connection: docker_default, network: none}
  resources: {cpus: 2, memory: 4g, shm: 64m, pids: 512}
  parameters: {learning_rate: 0.1, layers: [64, 32], early_stopping: true}
  seed: 7
  timeout: 2h
  retries: 2
  retry_delay: 1m
  deferrable: true
evaluation:
  require:
    - {metric: auc, at_least: 0.6}
    - {metric: auc, against: champion, no_worse_by: 0.01}
    - {metric: brier, at_most: 0.2}
  cases: true
registration: {model: delays}
delivery:
  - batch: {schedule: {assets: [flights_scheduled]}}
monitoring:
  schedule: {assets: [flights_landed]}
  drift: {alarm: warn, false_alarm_rate: 0.0001, min_rows: 1000, columns: null, min_columns: 2}
  performance: {alarm: retrain, loss: brier, false_alarm_rate: 0.000001, min_rows: 1000}
retraining: {schedule: "0 3 * * 1", on: [drift, performance]}
"""

DEFAULTS = """\
store: ../store
tracking: {connection: mlflow_shared}
"""
