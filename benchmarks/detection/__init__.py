"""Public sets of labelled anomalies, and their own rules for scoring a detector."""
