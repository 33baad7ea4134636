"""Real services on loopback for the tests: Kafka 4.1 and Elasticsearch 8.19 from Maven Central.

    from tests.services import Elasticsearch, Kafka, unique

    with Kafka() as kafka:                      # built on first use, cached in ~/.cache/ids-plugin/services
        topic = kafka.topic("conn", partitions=4)
        kafka.kill9(); kafka.start()            # same ports, same data

The fixtures `kafka` and `elasticsearch` (tests/conftest.py) share one of each among all tests of a
session; whoever kills or reconfigures a service starts one of its own; benches pass `options=()`
for a JVM at full speed. `python -m tests.services kafka elasticsearch` starts them for people.
Building needs a JDK 17 and Maven: `apt-get install openjdk-17-jdk-headless maven`.

Of Elasticsearch the server is real: bulk, data streams, rollover, templates, mappings, ids, search,
security. `elasticsearch/Mini.java` stands in for what Maven Central lacks: `GET /`, the
`_data_stream` API, the processors set, remove and rename, ILM policies (kept, never executed) and
look-alikes of the field types wildcard, constant_keyword, version, match_only_text and
scaled_float. A test that leans on a stand-in says so.
"""  # noqa: E501

from __future__ import annotations

from tests.services.certificates import Certificates
from tests.services.elasticsearch_server import Elasticsearch
from tests.services.kafka_server import Kafka
from tests.services.server import missing, unique

__all__ = ["Certificates", "Elasticsearch", "Kafka", "missing", "unique"]
