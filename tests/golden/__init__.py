"""What every verb printed before its surroundings were rebuilt."""
