"""What the demo is fed with: replay files, the trained filter, and the bundle that devices are given."""

from pathlib import Path

from msgspec import Struct

from contracts.bundle import Bundle
from infra.bundles.build import build_bundle
from infra.datasets import Manifest, Sources, write_datasets
from infra.setup.paths import cdnow_purchases_txt, shop_clicks_csv_gz, shuttle_csv_gz
from onnx_models.card import ModelCard
from onnx_models.factory import build_filter, write_filter


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
    datasets_dir, model_dir, bundle_dir = folder / "datasets", folder / "model", folder / "bundle"
    manifest = write_datasets(sources(), datasets_dir, fraction=fraction)
    trained = build_filter(sources().shuttle_csv_gz)
    write_filter(trained, model_dir)
    bundle = build_bundle(bundle_dir, model_dir, datasets_dir, manifest)
    return Material(datasets_dir, model_dir, bundle_dir, manifest, trained.card, bundle)
