"""What the demo is fed with: replay files, the trained filter, and the bundle that devices are given."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contracts.bundle import BUNDLE_FILE, Bundle, decode
from contracts.errors import OperatorMustActError
from infra.bundles.build import build_bundle
from infra.datasets import Manifest, Sources, read_manifest, write_datasets
from infra.setup.paths import cdnow_purchases_txt, repo_root, shop_clicks_csv_gz, shuttle_csv_gz
from onnx_models.card import ModelCard
from onnx_models.factory import CARD_JSON_FILE, build_filter, write_filter

NICE: Final = 19


class Material(Struct, frozen=True):
    """Folders and what is in them."""

    datasets_dir: Path
    model_dir: Path
    bundle_dir: Path
    manifest: Manifest
    card: ModelCard
    bundle: Bundle


def sources() -> Sources:
    """Return where the packages' data files lie."""
    return Sources(
        shuttle_csv_gz=shuttle_csv_gz(),
        cdnow_purchases_txt=cdnow_purchases_txt(),
        shop_clicks_csv_gz=shop_clicks_csv_gz(),
    )


def make_material(folder: Path, fraction: float = 1.0) -> Material:
    """Write data sets, model and bundle below `folder`; the model learns from the first 70 % of the record only."""
    datasets_dir, model_dir, bundle_dir = _folders(folder)
    manifest = write_datasets(sources(), datasets_dir, fraction=fraction)
    trained = build_filter(sources().shuttle_csv_gz)
    write_filter(trained, model_dir)
    build_bundle(bundle_dir, model_dir, datasets_dir, manifest)
    return load_material(folder)


def make_material_aside(folder: Path, fraction: float = 1.0) -> Material:
    """Like `make_material`, in a process of the lowest priority: a stack that starts meanwhile goes first.

    Raises OperatorMustActError with what the process said.
    """
    command = ["nice", "-n", str(NICE), sys.executable, "-m", "infra.demo.material", str(folder), str(fraction)]
    done = subprocess.run(command, cwd=repo_root(), capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode != 0:
        raise OperatorMustActError(f"data sets and filter: exit code {done.returncode}: {done.stderr.strip()[-600:]}")
    return load_material(folder)


def load_material(folder: Path) -> Material:
    """Read what `make_material` left in a folder."""
    datasets_dir, model_dir, bundle_dir = _folders(folder)
    return Material(
        datasets_dir,
        model_dir,
        bundle_dir,
        read_manifest(datasets_dir),
        msgspec.json.decode((model_dir / CARD_JSON_FILE).read_bytes(), type=ModelCard),
        decode((bundle_dir / BUNDLE_FILE).read_bytes()),
    )


def _folders(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "datasets", folder / "model", folder / "bundle"


def _give_way() -> None:
    """Lower this session too: where the kernel shares the processor by session first, niceness counts within one."""
    autogroup = Path("/proc/self/autogroup")
    if autogroup.exists():
        autogroup.write_text(str(NICE))


if __name__ == "__main__":
    _give_way()
    make_material(Path(sys.argv[1]), float(sys.argv[2]))
