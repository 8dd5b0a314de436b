"""What exported networks cost: the time of each and of its layers, and the integers on one layer's way."""
