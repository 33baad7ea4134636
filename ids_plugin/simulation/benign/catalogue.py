"""All benign activities, in the order in which they draw from a network's random numbers."""

from __future__ import annotations

from ids_plugin.simulation.benign.common import Activity
from ids_plugin.simulation.benign.devices import (
    cameras,
    cloud_polling,
    mqtt_messaging,
    printers,
    telephones,
)
from ids_plugin.simulation.benign.lookalikes import (
    administration,
    backups,
    dead_services,
    empty_checks,
    failed_logins,
    inventory,
    log_shipping,
    long_lookups,
    monitoring,
    scheduled_jobs,
    speed_tests,
)
from ids_plugin.simulation.benign.network_services import (
    dhcp_leases,
    discovery,
    neighbours,
    pings,
    resolving,
    time_synchronisation,
)
from ids_plugin.simulation.benign.people import (
    browsing,
    lasting_connections,
    peer_to_peer,
    updates,
    video_calls,
)
from ids_plugin.simulation.benign.servers import databases, mail, serving

ACTIVITIES: tuple[Activity, ...] = (
    cloud_polling,
    time_synchronisation,
    dhcp_leases,
    discovery,
    neighbours,
    pings,
    mqtt_messaging,
    cameras,
    browsing,
    lasting_connections,
    serving,
    databases,
    mail,
    resolving,
    peer_to_peer,
    printers,
    telephones,
    updates,
    video_calls,
)

LOOKALIKES: tuple[Activity, ...] = (
    backups,
    monitoring,
    inventory,
    failed_logins,
    dead_services,
    administration,
    scheduled_jobs,
    empty_checks,
    log_shipping,
    long_lookups,
    speed_tests,
)
