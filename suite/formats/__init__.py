"""The network of a finished recipe, made again, in the form of a format: ONNX, PT2E, plain tensors, torch.ao."""
