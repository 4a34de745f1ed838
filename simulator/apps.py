from django.apps import AppConfig


class SimulatorConfig(AppConfig):
    """Only for its command: the simulator runs without Django."""

    name = "simulator"
