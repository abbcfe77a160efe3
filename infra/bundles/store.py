"""The bundle of a running stack: made at the first use, published, then kept in its state folder."""

from collections.abc import Callable
from pathlib import Path

from contracts.bundle import BUNDLE_FILE, decode
from infra.launcher.endpoints import Endpoints


def ensure_bundle(endpoints: Endpoints, progress: Callable[[str], None]) -> Path:
    """Return the folder of the bundle; trains the filter and publishes contracts and dictionaries if it is missing."""
    from infra.demo.material import make_material
    from infra.provision import provision

    material_dir = Path(endpoints.state_dir) / "material"
    bundle_dir = material_dir / "bundle"
    if not (bundle_dir / BUNDLE_FILE).exists():
        progress("training the filter and building the device bundle (about half a minute, once) ...")
        make_material(material_dir)
    provision(endpoints, decode((bundle_dir / BUNDLE_FILE).read_bytes()), bundle_dir)
    return bundle_dir
