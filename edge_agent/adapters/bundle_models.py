"""Which model of a bundle a stream's filter asks."""

from contracts.bundle import Bundle, Model
from contracts.errors import ContractError
from edge_agent.errors import BundleError


def model_of(bundle: Bundle, contract_id: str) -> Model | None:
    """Return the model that a stream names, None when it names none. Raises BundleError, ContractError."""
    source, stream = bundle.contract(contract_id), bundle.stream(contract_id)
    if stream.model is None:
        return None
    model = next((entry for entry in bundle.models if entry.id == stream.model), None)
    if model is None:
        known = ", ".join(sorted(entry.id for entry in bundle.models)) or "none"
        raise BundleError(f"bundle {bundle.version}: stream {source.id} names model {stream.model!r}, it has {known}")
    for name in model.inputs:
        try:
            source.field(name)
        except ContractError as error:
            raise BundleError(
                f"bundle {bundle.version}: model {model.id}@{model.version} over {source.id}: {error}"
            ) from error
    return model
