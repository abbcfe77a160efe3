"""The real things behind the agent's ports: files, the broker, ONNX Runtime, the process itself."""
