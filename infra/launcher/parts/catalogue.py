"""All parts of the stack, in the order in which they are shown."""

from infra.launcher.model import Context, Part
from infra.launcher.parts import flink, kafka, mosquitto, postgres, services, store_a, store_b, trino


def all_parts(context: Context) -> dict[str, Part]:
    """Return every part by name."""
    parts = [
        *(module.part(context) for module in (mosquitto, kafka, store_a, store_b, postgres, trino)),
        *flink.parts(context),
        *services.parts(context),
    ]
    return {part.name: part for part in parts}
