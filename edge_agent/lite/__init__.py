"""The parts of the device that have a twin without numpy and ONNX Runtime, for devices with 24 MB."""
