"""What everything else rests on: validation of what comes from outside."""
