"""What is known about a flight one hour before it leaves: six feature views and the service that joins them."""

import os
from datetime import timedelta
from pathlib import Path

# This is a Feast repository: Feast itself imports this file, nothing else does.
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, Int64, PrimitiveFeastType, String

# A copy of this folder stands beside data/; the original is told where data/ is.
_BESIDE = Path(__file__).resolve().parents[1]
HOME = _BESIDE if (_BESIDE / "data" / "features").is_dir() else Path(os.environ.get("FLIGHTS_HOME", _BESIDE))

origin = Entity(
    name="origin", value_type=ValueType.STRING, description="airport of departure: EWR, JFK or LGA"
)
dest = Entity(name="dest", value_type=ValueType.STRING, description="airport of arrival")
carrier = Entity(name="carrier", value_type=ValueType.STRING, description="airline, two letters")
tailnum = Entity(name="tailnum", value_type=ValueType.STRING, description="the aircraft's registration")


def _view(
    name: str,
    entity: Entity,
    ttl: timedelta,
    description: str,
    features: dict[str, PrimitiveFeastType],
    created: str | None = None,
) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=ttl,
        description=description,
        schema=[
            Field(name=entity.join_key, dtype=String),
            *(Field(name=feature, dtype=dtype) for feature, dtype in features.items()),
        ],
        source=FileSource(
            name=f"{name}_files",
            path=str(HOME / "data" / "features" / name),
            file_format=ParquetFormat(),
            timestamp_field="time",
            created_timestamp_column=created,
        ),
    )


weather = _view(
    "weather",
    origin,
    timedelta(hours=3),
    "Hourly observation at the airport of departure; published 51 minutes past the hour.",
    dict.fromkeys(
        (
            "temp",
            "dewp",
            "humid",
            "wind_dir",
            "wind_speed",
            "wind_gust",
            "precip",
            "pressure",
            "visib",
        ),
        Float64,
    ),
    created="created",
)
plane = _view(
    "plane",
    tailnum,
    timedelta(0),
    "The register of aircraft; it does not change.",
    dict.fromkeys(("plane_year", "seats", "engines"), Float64),
)
last_leg = _view(
    "last_leg",
    tailnum,
    timedelta(hours=23),
    "How late the aircraft was on its last flight, known when it arrived.",
    dict.fromkeys(("tail_last_arr_delay", "tail_last_dep_delay"), Float64),
)
origin_departures = _view(
    "origin_departures",
    origin,
    timedelta(hours=3),
    "The airport's departures of the last two hours, known at each departure.",
    {"origin_dep_delay_2h": Float64, "origin_deps_2h": Int64},
)
carrier_yesterday = _view(
    "carrier_yesterday",
    carrier,
    timedelta(days=2),
    "The airline's arrivals of a day, known at the following midnight in New York.",
    dict.fromkeys(("carrier_arr_delay_1d", "carrier_late_1d"), Float64),
)
destination_yesterday = _view(
    "destination_yesterday",
    dest,
    timedelta(days=3),
    "Arrivals at the destination of a day, known at the following midnight in New York.",
    {"dest_arr_delay_1d": Float64},
)

flight_delay_v1 = FeatureService(
    name="flight_delay_v1",
    description="Everything that the model of late arrivals is given.",
    features=[weather, plane, last_leg, origin_departures, carrier_yesterday, destination_yesterday],
)
