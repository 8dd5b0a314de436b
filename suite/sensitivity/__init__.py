"""What rounding each tensor of a network costs, and the widths of least cost within a budget."""
