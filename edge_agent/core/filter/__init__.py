"""What happens to an event: rules, the model's outcomes, and detectors of anomalies."""
