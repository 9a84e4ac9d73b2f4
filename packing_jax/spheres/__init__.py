"""What a packing is: a box, diameters, an energy, and the rules that move it."""
