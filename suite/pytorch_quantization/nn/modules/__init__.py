"""The quantized layers and the quantizer, a file each kind, named as NVIDIA names them."""
