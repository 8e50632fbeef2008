"""What is measured of an agent in any world: predictions and their errors, crash detectors."""
