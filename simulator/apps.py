from django.apps import AppConfig


class SimulatorConfig(AppConfig):
    """Registers the `kis_simulator` command. The simulator itself runs without Django."""

    name = "simulator"
