"""The filters on the keys of readings and series: both bounds, in the order of the key."""

import bson
from bson import SON, MaxKey, MinKey
from bson.datetime_ms import DatetimeMS

from readings.filters import in_time_range, of_device, of_owner
from readings.keys import series_key


def test_a_range_has_both_bounds_on_the_whole_key_in_order() -> None:
    series = series_key("o", "d", "t")
    assert in_time_range(series, 1, 2) == {
        "_id": {"$gte": {**series, "ts": DatetimeMS(1)}, "$lt": {**series, "ts": DatetimeMS(2)}}
    }
    for query in (in_time_range(series, 1, 2), in_time_range(series)):
        assert list(query) == ["_id"]
        assert list(query["_id"]) == ["$gte", "$lt"]
        for bound in query["_id"].values():
            assert list(bound) == ["owner", "device", "sensorType", "ts"]
    assert isinstance(in_time_range(series)["_id"]["$gte"]["ts"], MinKey)
    assert isinstance(in_time_range(series)["_id"]["$lt"]["ts"], MaxKey)
    assert bson.encode(SON(in_time_range(series, 1, 2)))


def test_a_device_and_an_owner_are_ranges_over_the_start_of_the_key() -> None:
    assert of_device("o", "d") == {
        "_id": {"$gte": {"owner": "o", "device": "d"}, "$lt": {"owner": "o", "device": "d", "sensorType": MaxKey()}}
    }
    assert of_owner("o") == {"_id": {"$gte": {"owner": "o"}, "$lt": {"owner": "o", "device": MaxKey()}}}
    assert list(of_device("o", "d")["_id"]["$lt"]) == ["owner", "device", "sensorType"]
