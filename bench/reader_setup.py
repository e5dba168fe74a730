"""The setup of the reader benchmark: Tidegate's services, and a database of many readings."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bson
from pymongo import MongoClient, WriteConcern

from bench.environment import Environment
from bench.processes import BenchProcess
from bench.report import progress
from readings.document import encode_document
from readings.keys import series_key
from readings.reading import Reading
from testing.issuer import ISSUER
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port

OWNER = "owner-0"
SERIES = 1000
# Each series spans a day, regardless of its number of readings.
DAY_MS = 86_400_000
BEGIN_MS = 1_700_006_400_000  # a midnight
OPTIONS: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}


class ReaderSetup:
    """A reader and its database."""

    def __init__(self, environment: Environment, mongodb: MongoDBServer) -> None:
        self.environment = environment
        self.mongodb = mongodb
        self.token = environment.user_token(OWNER)

    @contextmanager
    def service(self, name: str, **settings: str) -> Iterator[tuple[BenchProcess, int]]:
        """Run one of Tidegate's services; yields it and its port."""
        port, ops_port = free_port(), free_port()
        environment = {
            "BROKER_URL": self.environment.broker_url,
            "READINGS_URL": self.mongodb.url,
            "READINGS_DATABASE": "bench",
            "AUTH_URL": self.environment.auth_url,
            "TOKEN_ISSUER": ISSUER,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(ops_port),
            **settings,
        }
        log = self.environment.folder / f"{name}.log"
        with BenchProcess([sys.executable, "-m", name], log=log, environment=environment) as started:
            started.wait_for_port(ops_port)
            yield started, port

    def fill(self, readings: int) -> None:
        """Store `readings` readings of 1,000 series, as a persister does."""
        each = readings // SERIES
        step_ms = DAY_MS // each
        with MongoClient[dict[str, Any]](self.mongodb.url) as client:
            database = client["bench"]
            collection = database.create_collection("readings", **OPTIONS)
            fast = collection.with_options(write_concern=WriteConcern(1))
            rng = random.Random(1)
            for number in range(SERIES):
                device, sensor_type = f"device-{number // 2}", ("temperature", "humidity")[number % 2]
                database["series"].insert_one({"_id": series_key(OWNER, device, sensor_type)})
                batch = [
                    bson.raw_bson.RawBSONDocument(
                        encode_document(
                            OWNER,
                            device,
                            Reading(sensor_type, round(rng.gauss(20, 3), 3), ts, 0, ts + 40, unit="celsius"),
                        )
                    )
                    for ts in range(BEGIN_MS, BEGIN_MS + each * step_ms, step_ms)
                ]
                for start in range(0, each, 4000):
                    fast.insert_many(batch[start : start + 4000], ordered=False)
                if number % 100 == 99:
                    progress(f"  {(number + 1) * each:,} readings are stored")
