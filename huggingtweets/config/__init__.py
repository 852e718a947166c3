"""What Hydra composes into, and the validated plan of one job."""
