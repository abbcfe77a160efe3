"""The two papers that travel with a model: the manifest that a device follows, the card that a person judges it by.

The manifest is the model's entry in a device bundle, as it stands.
"""

from typing import Final

import msgspec
from msgspec import Struct

from contracts.bundle import Model
from onnx_models.dataset import Split
from onnx_models.evaluation import Evaluation, Proportion
from onnx_models.export import INPUT_NAME, OUTPUT_NAME

MODEL_ID: Final = "telemetry-filter"
# Raised by hand when the kind of model or its inputs change; the hash behind it tells two trainings apart.
MODEL_SERIES: Final = "1.0.0"
HASH_DIGITS_IN_VERSION: Final = 12


class Agreement(Struct, frozen=True):
    """How far evaluators differed over `rows` real rows, as the largest absolute difference of two scores."""

    rows: int
    runtime_against_reference: float
    runtime_against_trained: float


class ModelCard(Struct, frozen=True):
    """Everything measured about one model; the Markdown page is rendered from it and adds no figure."""

    manifest: Model
    size_bytes: int
    data_file: str
    data_sha256: str
    split: Split
    seed: int
    tree_count: int
    node_count: int
    validation: Evaluation
    holdout: Evaluation
    # One tree of depth 3, fitted on the same rows, on the hold-out: says how hard the record is.
    small_tree_holdout: Evaluation
    anomaly_share_by_tenth: tuple[float, ...]
    agreement: Agreement
    opsets: dict[str, int]
    library_versions: dict[str, str]


def model_version(sha256: str) -> str:
    """Return a version in which two different models never share a name."""
    return f"{MODEL_SERIES}+{sha256[:HASH_DIGITS_IN_VERSION]}"


def encode_document(document: Model | ModelCard) -> bytes:
    """Return indented JSON that ends with a newline."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def render_card(card: ModelCard) -> str:
    """Return the card as Markdown."""
    manifest, split, small = card.manifest, card.split, card.small_tree_holdout.recall
    opsets = ", ".join(f"{domain} {version}" for domain, version in card.opsets.items())
    versions = ", ".join(f"{name} {version}" for name, version in card.library_versions.items())
    return f"""# {manifest.id} {manifest.version}

Scores one telemetry row of nine sensors between 0 and 1; a device keeps a row whose score is at least
{manifest.threshold:.6f} as a single row, and counts all others in its windows only.

## Model

| | |
|---|---|
| kind | forest of {card.tree_count} regression trees, {card.node_count:,} nodes, one ONNX operator |
| file | `{manifest.file}`, {card.size_bytes:,} bytes, SHA-256 `{manifest.sha256}` |
| input | `{INPUT_NAME}` float32 [{manifest.chunk_rows}, {len(manifest.inputs)}]: \
{", ".join(manifest.inputs)} |
| output | `{OUTPUT_NAME}` float32 [{manifest.chunk_rows}, 1] |
| operator sets | {opsets} |
| seed | {card.seed} |
| made with | {versions} |

## Data

`{card.data_file}` (SHA-256 `{card.data_sha256}`): the NASA shuttle sensor record
with its labels, {split.row_count:,} rows, parted by position:

| part | rows | used for |
|---|---|---|
| fit | 0 to {split.fit_end - 1:,} | growing the trees |
| validation | {split.fit_end:,} to {split.training_end - 1:,} | choosing the threshold |
| hold-out | {split.training_end:,} to {split.row_count - 1:,} | the figures below, nothing else |

## Measured

| part | recall of anomalies | 95 % interval | rows dropped | 95 % interval | anomalies missed | calm rows kept |
|---|---|---|---|---|---|---|
{_measured_line("validation", card.validation)}
{_measured_line("hold-out", card.holdout)}

Intervals are Wilson's. On {card.agreement.rows:,} hold-out rows onnxruntime and the ONNX reference evaluator
differ by at most {card.agreement.runtime_against_reference:.3g}, onnxruntime and the trained forest by at most \
{card.agreement.runtime_against_trained:.3g}; no row changes side of the threshold.

## Limits

- The record's rows carry no time, and the share of anomalies is level along the file \
({min(card.anomaly_share_by_tenth):.1%} to {max(card.anomaly_share_by_tenth):.1%} in every tenth):
  the hold-out is new rows of the same machine in the same mix of states, and says nothing about drift.
- The labels call every state but the usual one an anomaly; a fault that looks like the usual state is not in them.
- The record is an easy one: a single tree of depth 3 finds {small.count:,} of the {small.total:,} hold-out anomalies.
  Expect less of machines whose trouble does not show in one or two sensors at once.
- A sensor out of the range seen in training is scored by the nearest leaf; range checks belong to the data contract.
"""


def _measured_line(part: str, evaluation: Evaluation) -> str:
    recall, drop = evaluation.recall, evaluation.drop_ratio
    return (
        f"| {part} | {_share(recall)} | {_interval(recall)} | {_share(drop)} | {_interval(drop)} "
        f"| {evaluation.anomalies_missed} | {evaluation.calm_rows_kept} |"
    )


def _share(share: Proportion) -> str:
    return f"{share.value:.4f} ({share.count:,} of {share.total:,})"


def _interval(share: Proportion) -> str:
    return f"{share.low:.4f} to {share.high:.4f}"
