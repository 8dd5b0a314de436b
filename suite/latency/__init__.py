"""How long exported networks, and single layers, take on this machine."""
