"""Models as ONNX files that have been compared with what they were made from."""
