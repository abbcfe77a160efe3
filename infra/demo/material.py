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
LOG_TAIL_CHARS: Final = 600  # of its output, quoted when it failed


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


class MaterialProcess:
    """`make_material` in a process of the lowest priority: a stack that starts meanwhile goes first."""

    def __init__(self, folder: Path, fraction: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._log = folder / "material.log"
        command = ["nice", "-n", str(NICE), sys.executable, "-m", "infra.demo.material", str(folder), str(fraction)]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=repo_root(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def finish(self) -> Material:
        """Wait for it; raises OperatorMustActError with what the process said when it failed."""
        code = self._process.wait()
        if code != 0:
            said = self._log.read_text(errors="replace").strip()[-LOG_TAIL_CHARS:]
            raise OperatorMustActError(f"data sets and filter: exit code {code}: {said}")
        return load_material(self._folder)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()


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
