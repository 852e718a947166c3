"""Two or more trainings of the same people, held against each other."""
