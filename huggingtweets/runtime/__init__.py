"""What the code needs of the machine it runs on."""
