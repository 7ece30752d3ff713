"""Every method on points of the plane: three spirals, a small network, and the surface of probabilities of each."""
