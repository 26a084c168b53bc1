"""The embedded telemetry store: chDB in a process of its own, behind ClickHouse's HTTP protocol."""
