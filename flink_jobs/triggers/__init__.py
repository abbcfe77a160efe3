"""Rules over behaviour: a vectorised preselector, a pure evaluator, a thin Flink adapter."""
