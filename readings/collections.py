"""Names of the MongoDB collections that several services use, and the index that they agree on."""

READINGS = "readings"
SERIES = "series"

# The index of `series` that finds the devices of one sensorType; `readings` has no index but its key's.
SERIES_BY_SENSOR_TYPE = [("_id.owner", 1), ("_id.sensorType", 1), ("_id.device", 1)]
