"""The event bus: one interface, an embedded adapter for one process and RabbitMQ for many."""
