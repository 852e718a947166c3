"""One language model per person, at cluster speed."""
