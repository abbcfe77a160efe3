"""`python -m onnx_models --data shuttle.csv.gz --out DIR`: train the telemetry filter and write it with its papers."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import OperatorMustActError
from onnx_models.factory import DEFAULT_SEED, build_filter, write_filter


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 after writing the model, 1 with one line on standard error otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m onnx_models",
        description="Train the telemetry filter, check its ONNX form, write model, manifest and card.",
        epilog="example: python -m onnx_models --data shuttle.csv.gz --out .fieldlake/model",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="the sensor record, gzipped CSV")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the model and its papers")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the forest (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        trained = build_filter(options.data, options.seed)
        write_filter(trained, options.out)
    except (OperatorMustActError, OSError) as error:
        sys.stderr.write(f"onnx_models: {error}\n")
        return 1
    card, holdout = trained.card, trained.card.holdout
    sys.stdout.write(
        f"{card.manifest.id} {card.manifest.version}: {card.size_bytes:,} bytes, threshold "
        f"{card.manifest.threshold:.6f}; hold-out recall {holdout.recall.count}/{holdout.recall.total}, "
        f"drop ratio {holdout.drop_ratio.value:.4f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
