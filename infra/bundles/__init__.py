"""What devices are given: built from contract documents, a trained model and sample events; published for the lake."""
