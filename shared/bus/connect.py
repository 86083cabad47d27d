"""The one place that chooses the bus's adapter, by the URL in the settings."""

from shared.bus.interface import Bus
from shared.bus.topology import work_queues
from shared.config import Settings
from shared.errors import ConfigError, MissingDependencyError

EMBEDDED = "embedded:"


def connect_bus(settings: Settings, client_name: str, *, spread: float | None = None) -> Bus:
    """The site's bus, not yet opened.

    `spread` is for services of which there are thousands: the seconds over which they come back
    when the broker was away.
    """
    url = settings.bus.url.get_secret_value()
    queues = work_queues(settings.systems)
    if url == EMBEDDED:
        from shared.bus.embedded import EmbeddedBus  # noqa: PLC0415

        return EmbeddedBus(queues)
    if url.startswith(("amqp://", "amqps://")):
        try:
            from shared.bus.rabbitmq import RabbitBus  # noqa: PLC0415
        except ImportError as exc:
            raise MissingDependencyError(
                "bus.url names RabbitMQ, but its client is not installed: "
                "pip install 'dray[rabbitmq]'"
            ) from exc
        return RabbitBus(url, queues, client_name=client_name, spread=spread)
    raise ConfigError("bus.url: write embedded:, amqp://… or amqps://…")
