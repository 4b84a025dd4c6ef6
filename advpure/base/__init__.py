"""What everything else rests on: errors, validation, units, registry, storage, devices."""
