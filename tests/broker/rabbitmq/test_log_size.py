"""The shipped size of the log of quorum queues is the one that they have, in each version of RabbitMQ."""

from testing.servers.rabbitmq import CONFIGURATION, LOG_SIZE, RabbitMQServer


def test_quorum_queues_have_the_shipped_size_of_the_log(each_rabbitmq_server: RabbitMQServer) -> None:
    found = each_rabbitmq_server.rabbitmqctl("eval", "maps:get(wal_max_size_bytes, ra_system:fetch(quorum_queues)).")
    (shipped,) = [line for line in CONFIGURATION.read_text().splitlines() if line.startswith(LOG_SIZE)]
    assert shipped == f"{LOG_SIZE} = {found.strip()}" == f"{LOG_SIZE} = {64 * 1024 * 1024}"
